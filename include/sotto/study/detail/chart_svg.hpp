// Charts as inline SVG. Each is drawn twice, for wide and for narrow columns, so that its letters
// keep their size.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/study/chart.hpp>
#include <sotto/study/detail/axis.hpp>
#include <sotto/study/detail/markup.hpp>

namespace sotto::study::detail::inline SOTTO_ABI {

struct Canvas {
  double width, height;
  char const* style;  // "wide" or "narrow": the page shows one
  int x_ticks, y_ticks;
};
constexpr Canvas wide{640, 330, "wide", 6, 5}, narrow{360, 260, "narrow", 4, 4};
constexpr int colours = 6;

struct Point {
  double x, y;
};

// The points that can be drawn, in order of x.
inline std::vector<Point> drawable(Curve const& curve, bool log_x) {
  std::vector<Point> points;
  for (std::size_t i = 0; i < std::min(curve.x.size(), curve.y.size()); ++i)
    if (std::isfinite(curve.x[i]) && std::isfinite(curve.y[i]) && (!log_x || curve.x[i] > 0))
      points.push_back({curve.x[i], curve.y[i]});
  std::stable_sort(points.begin(), points.end(), [](Point a, Point b) { return a.x < b.x; });
  return points;
}

// A stretch of a long curve.
struct Stretch {
  double x, mean, low, high;
};

// At most `most` stretches of equal width on the axis: a step's loss is noisy, and a line through
// thousands of points would be a smear.
inline std::vector<Stretch> stretches(std::vector<Point> const& points, Axis const& axis, int most) {
  std::vector<Stretch> result;
  if (static_cast<int>(points.size()) <= 2 * most) {
    for (auto const& p : points) result.push_back({p.x, p.y, p.y, p.y});
    return result;
  }
  int current = -1, count = 0;
  for (auto const& p : points) {
    const int place = std::clamp(static_cast<int>(axis.at(p.x) * most), 0, most - 1);
    if (place != current) {
      current = place;
      count = 0;
      result.push_back({0, 0, p.y, p.y});
    }
    Stretch& s = result.back();
    ++count;
    s.x += (p.x - s.x) / count;
    s.mean += (p.y - s.mean) / count;
    s.low = std::min(s.low, p.y);
    s.high = std::max(s.high, p.y);
  }
  return result;
}

inline std::string text_at(double x, double y, char const* anchor, std::string const& text,
                           char const* style = "tick") {
  return "<text class=\"" + std::string(style) + "\" x=\"" + px(x) + "\" y=\"" + px(y) + "\" text-anchor=\"" + anchor +
         "\">" + escape(text) + "</text>";
}

// One command of a path.
inline std::string to(char command, double x, double y) {
  std::string text(1, command);
  return text.append(px(x)).append(1, ' ').append(px(y));
}

inline std::string rule(char const* style, double x1, double y1, double x2, double y2) {
  return "<path class=\"" + std::string(style) + "\" d=\"" + to('M', x1, y1) + to('L', x2, y2) + "\"/>";
}

inline std::string opening(Canvas const& canvas, std::string const& id, std::string const& title,
                           std::string const& description) {
  const std::string own = id + canvas.style;
  return "<svg class=\"" + std::string(canvas.style) + "\" viewBox=\"0 0 " + px(canvas.width) + " " +
         px(canvas.height) + "\" role=\"img\" aria-labelledby=\"" + own + "t " + own + "d\"><title id=\"" + own +
         "t\">" + escape(title) + "</title><desc id=\"" + own + "d\">" + escape(description) + "</desc>";
}

// Everything about a chart that both drawings share.
struct PreparedChart {
  Chart const& chart;
  std::vector<std::vector<Point>> points;
  Range x, y;
  std::string description;

  explicit PreparedChart(Chart const& c) : chart(c) {
    for (auto const& curve : c.curves) {
      points.push_back(drawable(curve, c.log_x));
      for (auto const& p : points.back()) {
        x.add(p.x);
        y.add(p.y);
      }
    }
    if (c.percent && !y.empty()) y.add(0);
    description = c.y_label + " against " + c.x_label + ".";
    for (std::size_t i = 0; i < points.size(); ++i)
      description += points[i].empty() ? " " + c.curves[i].name + ": no finite values."
                                       : " " + c.curves[i].name + ": from " + shown(points[i].front().y) + " to " +
                                             shown(points[i].back().y) + ".";
  }
  std::string shown(double value) const { return chart.percent ? format_percent(value) : format_significant(value, 3); }
};

inline std::string draw(PreparedChart const& prepared, Canvas const& canvas, std::string const& id) {
  Chart const& chart = prepared.chart;
  const double left = 46, right = canvas.width - 14, top = 26, bottom = canvas.height - 44;
  const SiPrefix prefix = chart.x_unit.empty() || prepared.x.empty() ? SiPrefix{1, ""} : si_prefix(prepared.x.high);
  Range across = prepared.x;
  if (!chart.log_x && !across.empty() && across.low > 0 && across.low < .2 * across.high)
    across.low = 0;  // nearly there: an axis from 0 reads more easily
  const Axis x = chart.log_x ? logarithmic_axis(across, canvas.x_ticks)
                             : linear_axis(across, canvas.x_ticks, false, prefix.factor);
  const Axis y = linear_axis(prepared.y, canvas.y_ticks, true, chart.percent ? .01 : 1, chart.percent ? " %" : "");
  const auto at_x = [&](double value) { return left + (right - left) * x.at(value); };
  const auto at_y = [&](double value) { return bottom - (bottom - top) * y.at(value); };

  std::string svg = opening(canvas, id, chart.title, prepared.description);
  svg += text_at(0, 12, "start", chart.y_label, "label");
  for (auto const& tick : y.ticks) {
    svg += rule("grid", left, at_y(tick.value), right, at_y(tick.value));
    svg += text_at(left - 8, at_y(tick.value) + 4, "end", tick.label);
  }
  svg += rule("axis", left, bottom, right, bottom);
  double free_from = -1e9;  // a label that would touch the one before it is left out
  for (auto const& tick : x.ticks) {
    const double place = at_x(tick.value);
    svg += rule("axis", place, bottom, place, bottom + 4);
    const double half = 3.7 * static_cast<double>(tick.label.size());
    if (place - half < free_from) continue;
    free_from = place + half + 8;
    const bool last = place + half > canvas.width;
    svg += text_at(last ? canvas.width : place, bottom + 18, last ? "end" : "middle", tick.label);
  }
  std::string unit = chart.x_unit;
  if (!unit.empty()) unit = " (" + std::string(chart.log_x ? "" : prefix.letter) + unit + ")";
  svg += text_at((left + right) / 2, canvas.height - 6, "middle", chart.x_label + unit, "label");
  if (prepared.x.empty()) svg += text_at((left + right) / 2, (top + bottom) / 2, "middle", "no finite values", "label");

  for (std::size_t i = 0; i < prepared.points.size(); ++i) {
    const auto line = stretches(prepared.points[i], x, static_cast<int>(canvas.width / 5));
    if (line.empty()) continue;
    std::string path, band, under;
    for (auto const& s : line) {
      path += to(path.empty() ? 'M' : 'L', at_x(s.x), at_y(s.mean));
      band += to(band.empty() ? 'M' : 'L', at_x(s.x), at_y(s.high));
      under.insert(0, to('L', at_x(s.x), at_y(s.low)));
    }
    svg += "<g class=\"c" + std::to_string(i % colours) + "\">";
    if (line.size() < prepared.points[i].size()) svg += "<path class=\"band\" d=\"" + band + under + "Z\"/>";
    svg += "<path class=\"line\" d=\"" + path + "\"/>";
    if (static_cast<double>(line.size()) <= canvas.width / 20)  // more would be a dotted line
      for (auto const& s : line)
        svg += "<circle class=\"dot\" cx=\"" + px(at_x(s.x)) + "\" cy=\"" + px(at_y(s.mean)) + "\" r=\"2.6\"/>";
    svg += "</g>";
  }
  return svg + "</svg>";
}

/// A figure: title, legend with each curve's last value (above the axes: it can cover no line),
/// drawing.
inline std::string figure(Chart const& chart, std::string const& id) {
  const PreparedChart prepared(chart);
  std::string html = "<figure><figcaption>" + escape(chart.title) + "</figcaption><ul class=\"legend\">";
  bool banded = false;
  for (std::size_t i = 0; i < chart.curves.size(); ++i) {
    auto const& points = prepared.points[i];
    banded |= points.size() > 2 * static_cast<std::size_t>(wide.width / 5);
    html += "<li class=\"c" + std::to_string(i % colours) + "\"><i></i>" + escape(chart.curves[i].name) + " <b>" +
            (points.empty() ? "n/a" : escape(prepared.shown(points.back().y))) + "</b></li>";
  }
  html += "</ul>" + draw(prepared, wide, id) + draw(prepared, narrow, id);
  if (banded) html += "<p class=\"remark\">Long lines are means of short stretches; the band is their range.</p>";
  return html + "</figure>";
}

inline std::string draw(IntervalChart const& chart, Canvas canvas, std::string const& id) {
  constexpr double row_height = 46;
  canvas.height = row_height * static_cast<double>(chart.rows.size()) + 52;
  const auto shown = [&](double v) { return chart.percent ? format_percent(v) : format_significant(v, 3); };
  Range range;
  range.add(0);
  std::string description;
  for (auto const& row : chart.rows) {
    for (const double v : {row.value, row.low, row.high})
      if (std::isfinite(v)) range.add(v);
    description +=
        row.name + ": " + shown(row.value) + ", interval " + shown(row.low) + " to " + shown(row.high) + ". ";
  }
  if (range.high == 0 && range.low == 0) range.add(1);
  const double left = 12, right = canvas.width - 18, top = 4, bottom = canvas.height - 44;
  const Axis x = linear_axis(range, canvas.x_ticks, true, chart.percent ? .01 : 1, chart.percent ? " %" : "");
  const auto at_x = [&](double value) { return left + (right - left) * x.at(value); };
  std::string svg = opening(canvas, id, chart.title, description);
  for (auto const& tick : x.ticks) {
    svg += rule("grid", at_x(tick.value), top, at_x(tick.value), bottom);
    svg += text_at(at_x(tick.value), bottom + 18, "middle", tick.label);
  }
  svg += rule("axis", left, bottom, right, bottom);
  svg += text_at((left + right) / 2, canvas.height - 6, "middle", chart.x_label, "label");
  double y = top;
  for (auto const& row : chart.rows) {
    svg += "<text class=\"name halo\" x=\"" + px(left) + "\" y=\"" + px(y + 15) + "\">" + escape(row.name) +
           " <tspan class=\"value\">" + escape(shown(row.value)) + "</tspan>" +
           (row.note.empty() || canvas.width < 500 ? "" : " <tspan class=\"tick\">" + escape(row.note) + "</tspan>") +
           "</text>";
    const double middle = y + 29;
    svg += std::string("<g class=\"") + (row.highlight ? "c0" : "plain") + "\">";
    if (std::isfinite(row.low) && std::isfinite(row.high)) {
      svg += rule("interval", at_x(row.low), middle, at_x(row.high), middle);
      for (const double end : {row.low, row.high}) svg += rule("cap", at_x(end), middle - 4, at_x(end), middle + 4);
    }
    if (std::isfinite(row.value))
      svg += "<circle class=\"dot\" cx=\"" + px(at_x(row.value)) + "\" cy=\"" + px(middle) + "\" r=\"5\"/>";
    svg += "</g>";
    y += row_height;
  }
  return svg + "</svg>";
}

inline std::string figure(IntervalChart const& chart, std::string const& id) {
  return "<figure><figcaption>" + escape(chart.title) + "</figcaption>" + draw(chart, wide, id) +
         draw(chart, narrow, id) + "</figure>";
}

}  // namespace sotto::study::detail::inline SOTTO_ABI
