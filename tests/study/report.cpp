#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <sotto/study/report.hpp>

namespace {

using namespace sotto;
using namespace sotto::study;

// Every element that opens closes again, in order; HTML's void elements aside.
std::string unbalanced(std::string_view html) {
  std::vector<std::string> open;
  for (std::size_t at = 0; (at = html.find('<', at)) != html.npos;) {
    const std::size_t end = html.find('>', at);
    if (end == html.npos) return "a tag that never ends";
    std::string_view tag = html.substr(at + 1, end - at - 1);
    at = end + 1;
    if (tag.starts_with('!') || tag.ends_with('/')) continue;
    const bool closes = tag.starts_with('/');
    if (closes) tag.remove_prefix(1);
    const std::string name(tag.substr(0, tag.find_first_of(" \n")));
    if (name == "meta") continue;
    if (!closes) {
      open.push_back(name);
    } else {
      if (open.empty() || open.back() != name) return "closes " + name;
      open.pop_back();
    }
  }
  return open.empty() ? "" : "leaves open " + open.back();
}

int count(std::string_view text, std::string_view word) {
  int found = 0;
  for (std::size_t at = 0; (at = text.find(word, at)) != text.npos; at += word.size()) ++found;
  return found;
}

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

}  // namespace

TEST_CASE("a report is one sound page that fetches nothing and runs nothing") {
  Report report("Title", "subtitle");
  report.facts({{"model", "tiny"}});
  report.heading("Part");
  report.paragraph("Text.");
  report.chart(Chart{"Loss", "compute", "nats", false, {{"training", {1e12, 2e12}, {3, 2}}}, "FLOP"});
  report.chart(IntervalChart{"Words", "accuracy", {{"log-mel", .5, .4, .6}}});
  report.table({"features", "accuracy"}, {{"log-mel", "50.0 %"}}, "Words");
  const std::string html = report.html();
  CHECK(unbalanced(html) == "");
  CHECK(html.find("<script") == html.npos);
  CHECK(html.find("http") == html.npos);
  CHECK(html.find("url(") == html.npos);
  CHECK(html.find("prefers-color-scheme:dark") != html.npos);
  CHECK(count(html, "<svg") == 4);
  CHECK(count(html, "<desc") == 4);
  CHECK(html.find("compute (TFLOP)") != html.npos);
  CHECK(html.find("log-mel: 50.0 %, interval 40.0 % to 60.0 %.") != html.npos);
}

TEST_CASE("text from outside cannot become markup, wherever it is put") {
  const std::string evil = "<script>'\"&\x01";
  Report report(evil, evil);
  report.facts({{evil, evil}});
  report.heading(evil);
  report.paragraph(evil);
  report.chart(Chart{evil, evil, evil, false, {{evil, {1, 2}, {1, 2}}}, evil});
  report.chart(IntervalChart{evil, evil, {{evil, .5, .4, .6, evil}}});
  report.table({evil, evil}, {{evil, evil}}, evil);
  const std::string html = report.html();
  CHECK(html.find("<script") == html.npos);
  CHECK(html.find('\x01') == html.npos);
  CHECK(unbalanced(html) == "");
  CHECK(count(html, "&lt;script&gt;&#39;&quot;&amp;") >= 20);
}

TEST_CASE("numbers that are not finite are left out of charts") {
  Report report("r");
  report.chart(Chart{"a",
                     "x",
                     "y",
                     false,
                     {{"gaps", {0, 1, 2, not_a_number, 4, 5}, {1, not_a_number, 2, 3, infinity, 1.5}},
                      {"none", {}, {}},
                      {"lengths differ", {1, 2, 3}, {1}}}});
  report.chart(Chart{"b", "x", "y", true, {{"log", {-1, 0, 10, 1000}, {9, 9, 1, 2}}}});
  report.chart(Chart{"c", "x", "y", true, {{"nothing", {-1, not_a_number}, {1, 1}}}});
  report.chart(IntervalChart{"d", "x", {{"unknown", not_a_number, not_a_number, infinity}, {"known", .1, .1, .1}}});
  report.chart(IntervalChart{"e", "x", {}});
  const std::string html = report.html();
  CHECK(unbalanced(html) == "");
  // Coordinates live in these attributes.
  for (std::size_t at = 0; (at = html.find(" d=\"", at)) != html.npos; ++at) {
    const std::string path = html.substr(at + 4, html.find('"', at + 4) - at - 4);
    CHECK(path.find_first_not_of("MLZ0123456789.- ") == path.npos);
  }
  CHECK(count(html, "cx=\"n/a\"") == 0);
  CHECK(html.find("no finite values") != html.npos);
  CHECK(html.find("gaps: from 1 to 1.5.") != html.npos);
}

TEST_CASE("a long curve becomes means of stretches and a band, and stays small") {
  Curve noisy{"noisy", {}, {}};
  for (int i = 0; i < 200000; ++i) {
    noisy.x.push_back(i * 1e9);
    noisy.y.push_back(3 + (i % 2 ? .5 : -.5));
  }
  Report report("r");
  report.chart(Chart{"a", "compute", "loss", false, {noisy}, "FLOP"});
  const std::string html = report.html();
  CHECK(html.size() < 40000);
  CHECK(count(html, "class=\"band\"") == 2);
  CHECK(html.find("compute (TFLOP)") != html.npos);
}

TEST_CASE("axes have few ticks at round numbers, and hold every value") {
  using study::detail::linear_axis;
  for (const study::detail::Range range : {study::detail::Range{0, 1},
                                           {3.4, 4.83},
                                           {-17, 250},
                                           {1e12, 9.7e12},
                                           {5, 5},
                                           {0, 0},
                                           {1e-7, 3e-7},
                                           {1e6, 1e6 + 1}}) {
    CAPTURE(range.low);
    CAPTURE(range.high);
    const auto axis = linear_axis(range, 5, true);
    CHECK(axis.low <= range.low);
    CHECK(axis.high >= range.high);
    CHECK(axis.ticks.size() >= 3);
    CHECK(axis.ticks.size() <= 9);
    for (std::size_t i = 1; i < axis.ticks.size(); ++i) CHECK(axis.ticks[i].label != axis.ticks[i - 1].label);
  }
  CHECK(linear_axis({0, .6}, 5, true, .01, " %").ticks[1].label == "20 %");
  const auto decades = study::detail::logarithmic_axis({1e9, 1e15}, 6);
  CHECK(decades.ticks.front().label == "1 G");
  CHECK(decades.ticks.back().label == "1 P");
  CHECK(decades.at(1e12) == doctest::Approx(.5));
  CHECK(study::detail::logarithmic_axis({2e12, 3e12}, 4).ticks.size() >= 1);
}

TEST_CASE("tables name their rows and columns and set numbers flush right") {
  Report report("r");
  report.table({"features", "accuracy", "note"}, {{"log-mel", "54.9 %", "2 layers"}, {"encoder", "n/a", "best"}});
  const std::string html = report.html();
  CHECK(count(html, "scope=\"row\"") == 2);
  CHECK(html.find("<th scope=\"col\" class=\"number\">accuracy") != html.npos);
  CHECK(html.find("<th scope=\"col\">note") != html.npos);
  CHECK_THROWS_AS(report.table({"one", "two"}, {{"cell"}}), Error);
}

TEST_CASE("writing replaces the old report as a whole, and says so if it cannot") {
  const auto folder = std::filesystem::temp_directory_path() / "sotto_report_test";
  std::filesystem::create_directories(folder);
  const auto path = folder / "report.html";
  std::ofstream(path) << "old";
  Report report("new one");
  report.write(path);
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  CHECK(text == report.html());
  CHECK(std::distance(std::filesystem::directory_iterator(folder), {}) == 1);
  CHECK_THROWS_AS(report.write(folder / "absent" / "report.html"), Error);
  std::filesystem::remove_all(folder);
}
