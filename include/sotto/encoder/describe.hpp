// A spec in words, the same from g++ and clang: what a checkpoint says it is of.
#pragma once

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include <sotto/core/error.hpp>
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

#define SOTTO_TEXT_(name) #name
#define SOTTO_TEXT(name) SOTTO_TEXT_(name)

/// A type's name without sotto's namespaces, and with these arguments where it has any.
inline SOTTO_COLD std::string short_type_name(std::string_view name, std::string const& arguments) {
  if (!arguments.empty()) name = name.substr(0, name.find('<'));
  constexpr std::string_view version = SOTTO_TEXT(SOTTO_API);  // and SOTTO_ABI begins with it
  std::string text;
  while (!name.empty()) {
    for (std::string_view anonymous : {"{anonymous}", "(anonymous namespace)"})  // g++, clang
      if (name.starts_with(anonymous)) {
        text += "anonymous";
        name.remove_prefix(anonymous.size());
      }
    std::size_t n = 0;
    while (n < name.size() && (std::isalnum(static_cast<unsigned char>(name[n])) || name[n] == '_')) ++n;
    const std::string_view word = name.substr(0, n);
    const bool scope = name.substr(n).starts_with("::");
    if (scope && (word == "sotto" || word == version || (word.starts_with(version) && word.find("_isa") != word.npos)))
      n += 2;
    else
      text += name.substr(0, n = std::max<std::size_t>(n, name.empty() ? 0 : 1));
    name.remove_prefix(n);
  }
  return text + arguments;
}
#undef SOTTO_TEXT
#undef SOTTO_TEXT_

inline SOTTO_COLD std::string listed(std::initializer_list<std::string> arguments) {
  std::string text = "<";
  for (std::string const& argument : arguments) text += joined({text.size() > 1 ? ", " : "", argument});
  return text + ">";
}

template <class T> std::string type_name();

/// What stands in a template's brackets, defaults included: a compiler's own text leaves out which it likes. Templates
/// of other kinds of parameters than these say their name themselves.
template <class T> struct TypeArguments {
  static std::string text() { return {}; }
};
template <template <int...> class T, int... V> struct TypeArguments<T<V...>> {
  static std::string text() { return listed({std::to_string(V)...}); }
};
template <template <class...> class T, class... A> struct TypeArguments<T<A...>> {
  static std::string text() { return listed({type_name<A>()...}); }
};
template <template <int, class> class T, int V, class A> struct TypeArguments<T<V, A>> {
  static std::string text() { return listed({std::to_string(V), type_name<A>()}); }
};
template <template <int, int, bool, bool> class T, int V, int W, bool A, bool B> struct TypeArguments<T<V, W, A, B>> {
  static std::string text() {
    return listed({std::to_string(V), std::to_string(W), A ? "true" : "false", B ? "true" : "false"});
  }
};
template <int Bands, int Stack, frontend::Normalisation N> struct TypeArguments<frontend::LogMel<Bands, Stack, N>> {
  static std::string text() {
    constexpr char const* names[] = {"none", "utterance", "corpus"};
    return listed({std::to_string(Bands), std::to_string(Stack), names[static_cast<int>(N)]});
  }
};

/// A type may say its name: `static constexpr std::string_view name`.
template <class T> std::string type_name() {
  if constexpr (requires { std::string(T::name); }) {
    return std::string(T::name);
  } else {
    constexpr std::string_view name = raw_type_name<T>();
    return short_type_name(name, TypeArguments<T>::text());
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
