#include <doctest/doctest.h>

#include <string>

#include <sotto/budget/device_bound.hpp>
#include <sotto/encoder/presets.hpp>

using namespace sotto;

TEST_CASE("a device is found by its name, and another names those that there are") {
  CHECK(device_sheet("h100").bandwidth == 3.35e12);
  CHECK_THROWS_WITH_AS(device_sheet("t4"), doctest::Contains("h100, a100, rtx4090, l4"), Error);
}

TEST_CASE("an operation is bound by what takes longer, and twice the rows are twice the arithmetic") {
  auto const& sheet = device_sheet("h100");
  const DeviceOperation product{"product", 1, 989e12, 3.35e12, true, true}, norm{"norm", 1, 67e12, 6.7e12, false, true};
  CHECK(product.seconds(sheet) == doctest::Approx(1));
  CHECK(norm.seconds(sheet) == doctest::Approx(2));
  const auto once = device_operations<presets::Slim>(2000, 500), twice = device_operations<presets::Slim>(4000, 500);
  REQUIRE(once.size() == twice.size());
  for (std::size_t i = 0; i < once.size(); ++i) {
    CAPTURE(std::string(once[i].name));
    CHECK(once[i].launches == twice[i].launches);
    if (once[i].layer) CHECK(twice[i].flops == doctest::Approx(2 * once[i].flops));
    CHECK(twice[i].bytes <= 2 * once[i].bytes);
  }
}

TEST_CASE("the arithmetic of the layers' products is the model's: what is executed beside it is attention recomputed") {
  double products = 0;
  constexpr int rows = 1000, length = 500;
  for (auto const& operation : device_operations<presets::Slim>(rows, length))
    if (operation.layer && operation.tensor && operation.name.find("attention") == std::string_view::npos)
      products += operation.flops;
  using Price = Cost<presets::Slim>;
  CHECK(products == doctest::Approx(6. * rows * presets::Slim::shape.depth * static_cast<double>(Price::layer_row)));
}
