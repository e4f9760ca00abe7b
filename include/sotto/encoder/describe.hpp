// A spec in words, the same from every compiler: what a checkpoint says it is of.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

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

/// A type's name without sotto's namespaces. A type may say its own: `static constexpr std::string_view name`.
template <class T> std::string type_name() {
  if constexpr (requires { std::string(T::name); }) {
    return std::string(T::name);
  } else {
    std::string text(raw_type_name<T>());
    for (auto at = text.find("sotto::"); at != std::string::npos; at = text.find("sotto::", at)) text.erase(at, 7);
    for (auto at = text.find("v_0_"); at != std::string::npos; at = text.find("v_0_", at)) {
      auto end = text.find("::", at);
      if (end == std::string::npos) break;
      text.erase(at, end + 2 - at);
    }
    return text;
  }
}

}  // namespace sotto::detail::inline SOTTO_ABI

namespace sotto::inline SOTTO_ABI {

/// Field and value of everything that makes two specs different models.
template <class Model> std::vector<std::pair<std::string, std::string>> spec_fields() {
  constexpr EncoderShape shape = Model::shape.resolved();
  return {{"width", std::to_string(shape.width)},
          {"depth", std::to_string(shape.depth)},
          {"heads", std::to_string(shape.heads)},
          {"feed_forward", std::to_string(shape.feed_forward)},
          {"frontend", detail::type_name<typename Model::Frontend>()},
          {"position", detail::type_name<typename Model::Position>()},
          {"norm", detail::type_name<typename Model::Norm>()},
          {"attention", detail::type_name<typename Model::Attention>()},
          {"objective", detail::type_name<typename Model::Objective>()},
          {"augmentation", detail::type_name<typename Model::Augmentation>()},
          {"parameters", std::to_string(count(parameter_table<Model>))}};
}

}  // namespace sotto::inline SOTTO_ABI
