// What a report can draw.
#pragma once

#include <string>
#include <vector>

#include <sotto/config.hpp>

namespace sotto::study::inline SOTTO_ABI {

/// A line of a chart. x and y have the same length; points that are not finite are left out.
struct Curve {
  std::string name;
  std::vector<double> x, y;
};

/// Lines over one pair of axes.
struct Chart {
  std::string title, x_label, y_label;
  bool log_x = false;           ///< points with x <= 0 are then left out
  std::vector<Curve> curves{};  ///< six at most can be told apart by colour
  std::string x_unit{};         ///< "FLOP": the axis gets an SI prefix; "": plain numbers
  bool percent = false;         ///< y is a fraction and shown in percent, from 0
};

/// One value and the interval around it.
struct Interval {
  std::string name;
  double value, low, high;
  std::string note{};      ///< shown small beside the name
  bool highlight = false;  ///< drawn in the accent colour
};

/// Values with their intervals, one below the other on a common axis that begins at 0.
struct IntervalChart {
  std::string title, x_label;
  std::vector<Interval> rows{};
  bool percent = true;  ///< values are fractions and shown in percent
};

}  // namespace sotto::study::inline SOTTO_ABI
