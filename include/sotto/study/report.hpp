// A report that opens in any browser: one file, no script, nothing fetched.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/io/durable_file.hpp>
#include <sotto/study/chart.hpp>
#include <sotto/study/detail/chart_svg.hpp>
#include <sotto/study/detail/markup.hpp>
#include <sotto/study/detail/page_style.hpp>

namespace sotto::study::inline SOTTO_ABI {

/// A page of text, facts, charts and tables, in the order they are added. All text is taken as it
/// is (UTF-8) and escaped. Neighbouring charts stand side by side where there is room.
class Report {
 public:
  /// title: the page's; subtitle: a line below it.
  explicit Report(std::string title, std::string subtitle = {})
      : title_(std::move(title)), subtitle_(std::move(subtitle)) {}

  void heading(std::string const& text) { add("<h2>" + detail::escape(text) + "</h2>"); }
  void paragraph(std::string const& text) { add("<p>" + detail::escape(text) + "</p>"); }

  /// Names and values, as a grid of small cards.
  void facts(std::vector<std::pair<std::string, std::string>> const& facts) {
    std::string html = "<dl>";
    for (auto const& [name, value] : facts)
      html += "<div><dt>" + detail::escape(name) + "</dt><dd>" + detail::escape(value) + "</dd></div>";
    add(html + "</dl>");
  }

  void chart(Chart const& chart) { add(detail::figure(chart, next_id()), true); }
  void chart(IntervalChart const& chart) { add(detail::figure(chart, next_id()), true); }

  /// A table whose first column names the rows. Columns of numbers are set flush right. Throws
  /// Error(usage) if a row has not as many cells as there are columns.
  void table(std::vector<std::string> const& columns, std::vector<std::vector<std::string>> const& rows,
             std::string const& caption = {}) {
    for (auto const& row : rows)
      if (row.size() != columns.size())
        throw_error(ErrorCode::usage, {"report: a row of the table \"", caption, "\" has ", row.size(), " cells for ",
                                       columns.size(), " columns"});
    std::vector<bool> numbers;
    for (std::size_t c = 0; c < columns.size(); ++c) {
      bool all = c > 0 && !rows.empty();
      for (auto const& row : rows) all = all && is_number(row[c]);
      numbers.push_back(all);
    }
    const auto align = [&](std::size_t c) { return std::string(numbers[c] ? " class=\"number\"" : ""); };
    std::string html = "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"" +
                       detail::escape(caption.empty() ? "table" : caption) + "\"><table>";
    if (!caption.empty()) html += "<caption>" + detail::escape(caption) + "</caption>";
    html += "<thead><tr>";
    for (std::size_t c = 0; c < columns.size(); ++c)
      html += "<th scope=\"col\"" + align(c) + ">" + detail::escape(columns[c]) + "</th>";
    html += "</tr></thead><tbody>";
    for (auto const& row : rows) {
      html += "<tr>";
      for (std::size_t c = 0; c < row.size(); ++c)
        html += c == 0 ? "<th scope=\"row\">" + detail::escape(row[c]) + "</th>"
                       : "<td" + align(c) + ">" + detail::escape(row[c]) + "</td>";
      html += "</tr>";
    }
    add(html + "</tbody></table></div>");
  }

  /// The page.
  std::string html() const {
    std::string page =
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
        "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>" +
        detail::escape(title_) + "</title><style>" + detail::page_style +
        "</style></head>\n<body><main>\n<header><h1>" + detail::escape(title_) + "</h1>";
    if (!subtitle_.empty()) page += "<p class=\"subtitle\">" + detail::escape(subtitle_) + "</p>";
    page += "</header>\n";
    for (std::size_t i = 0; i < blocks_.size();) {
      if (!blocks_[i].figure) {
        page += blocks_[i++].html + "\n";
        continue;
      }
      std::size_t end = i;
      while (end < blocks_.size() && blocks_[end].figure) ++end;
      page += end - i == 1 ? "<div class=\"figures one\">" : "<div class=\"figures\">";
      for (; i < end; ++i) page += blocks_[i].html + "\n";
      page += "</div>\n";
    }
    return page + "</main></body></html>\n";
  }

  /// Writes the page; the file is the old one or the whole new one, never half. Throws Error(file).
  void write(std::filesystem::path const& path) const {
    DurableFile file(path);
    file.write(html());
    file.commit();
  }

 private:
  struct Block {
    std::string html;
    bool figure;
  };

  void add(std::string html, bool figure = false) { blocks_.push_back({std::move(html), figure}); }
  std::string next_id() { return "f" + std::to_string(++figures_); }

  static bool is_number(std::string const& cell) {
    if (cell.empty() || cell == "n/a" || cell == "\u2013") return true;
    const std::size_t first = cell[0] == '-' || cell[0] == '+' ? 1 : 0;
    return first < cell.size() && cell[first] >= '0' && cell[first] <= '9';
  }

  std::string title_, subtitle_;
  std::vector<Block> blocks_;
  int figures_ = 0;
};

}  // namespace sotto::study::inline SOTTO_ABI
