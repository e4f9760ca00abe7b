// Text made safe for HTML and SVG, and numbers as coordinates.
#pragma once

#include <string>
#include <string_view>

#include <sotto/config.hpp>
#include <sotto/study/format.hpp>

namespace sotto::study::detail::inline SOTTO_ABI {

/// Text for content and quoted attributes. Control characters, which HTML forbids, are left out.
inline std::string escape(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    if (c == '&')
      safe += "&amp;";
    else if (c == '<')
      safe += "&lt;";
    else if (c == '>')
      safe += "&gt;";
    else if (c == '"')
      safe += "&quot;";
    else if (c == '\'')
      safe += "&#39;";
    else if (static_cast<unsigned char>(c) >= 32 || c == '\n' || c == '\t')
      safe += c;
  }
  return safe;
}

/// A coordinate: a tenth of a pixel is enough.
inline std::string px(double value) { return format_fixed(value, 1); }

}  // namespace sotto::study::detail::inline SOTTO_ABI
