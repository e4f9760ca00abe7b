// A spec in words, the same from every compiler: what a checkpoint says it is of.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include <sotto/core/texts.hpp>
#include <sotto/encoder/spec.hpp>

namespace sotto::detail::inline SOTTO_ABI {

template <class T> constexpr std::string_view raw_type_name() {
  std::string_view text = __PRETTY_FUNCTION__;  // "... [with T = X; ...]" (g++), "... [T = X]" (clang)
  text.remove_prefix(text.find("T = ") + 4);
  int depth = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '<') ++depth;
    if (text[i] == '>') --depth;
    if (depth == 0 && (text[i] == ';' || text[i] == ']')) return text.substr(0, i);
  }
  return text;
}

/// A type's name without sotto's namespaces.
inline SOTTO_COLD std::string short_type_name(std::string_view name) {
  std::string text(name);
  for (auto at = text.find("sotto::"); at != std::string::npos; at = text.find("sotto::", at)) text.erase(at, 7);
  for (auto at = text.find("v_0_"); at != std::string::npos; at = text.find("v_0_", at)) {
    const auto end = text.find("::", at);
    if (end == std::string::npos) break;
    text.erase(at, end + 2 - at);
  }
  return text;
}

/// A type may say its name: `static constexpr std::string_view name`.
template <class T> std::string type_name() {
  if constexpr (requires { std::string(T::name); }) {
    return std::string(T::name);
  } else {
    constexpr std::string_view name = raw_type_name<T>();
    return short_type_name(name);
  }
}

}  // namespace sotto::detail::inline SOTTO_ABI

namespace sotto::inline SOTTO_ABI {

/// Field and value of everything that makes two specs different models.
template <class Model> SOTTO_COLD Texts spec_fields() {
  constexpr EncoderShape shape = Model::shape.resolved();
  Texts fields;
  for (auto const& [name, number] : {std::pair("width", shape.width), std::pair("depth", shape.depth),
                                     std::pair("heads", shape.heads), std::pair("feed_forward", shape.feed_forward),
                                     std::pair("parameters", static_cast<int>(count(parameter_table<Model>)))})
    fields.set(name, std::to_string(number));
  fields.set("frontend", detail::type_name<typename Model::Frontend>());
  fields.set("position", detail::type_name<typename Model::Position>());
  fields.set("norm", detail::type_name<typename Model::Norm>());
  fields.set("attention", detail::type_name<typename Model::Attention>());
  fields.set("objective", detail::type_name<typename Model::Objective>());
  fields.set("augmentation", detail::type_name<typename Model::Augmentation>());
  return fields;
}

}  // namespace sotto::inline SOTTO_ABI
