// What info --device counts is what a step does: launches to the last, bytes as device code moves them.
#include <doctest/doctest.h>

#include <map>
#include <string>

#include <sotto/budget/device_bound.hpp>
#include <sotto/cuda.hpp>
#include <sotto/sotto.hpp>

#include "../encoder/gradients.hpp"
#include "execution.hpp"

using namespace sotto;
using namespace sotto::test;

namespace {

template <int Depth, class NormOrder> struct Layers : Spec {
  static constexpr EncoderShape shape{.width = 64, .depth = Depth, .heads = 2, .feed_forward = 256};
  using Frontend = frontend::LogMel<20, 2>;
  using Position = position::Convolution<8, 8>;  // what stands behind it is aligned
  using Norm = NormOrder;
  using Objective = objective::Hubert<16, objective::Cosine<32>>;
};

struct PaperWidth : Spec {
  static constexpr EncoderShape shape{.width = 384, .depth = 12, .heads = 8, .feed_forward = 1536};
};

struct Moved {
  double launches = 0, bytes = 0;
};
/// What one step of a model does, by kernel.
template <class Model> std::map<std::string, Moved> step(int rows) {
  DeviceEngine<Model, Cuda<bf16>> engine({rows, rows}, {.record = false});
  initialise(std::span<ParameterEntry const>(parameter_table<Model>), engine.values().data(), 1);
  engine.prepare();
  Batch batch;
  // One tile a sequence: keys and values of longer ones are read again from the cache, tile by tile.
  batch.lanes.push_back(random_lane(std::vector<int>(static_cast<std::size_t>(rows / 64), 64), 40, 16, 3));
  batch.rows = rows;
  batch.masked = static_cast<std::int64_t>(batch.lanes[0].masked.size());
  engine.rehearse(batch, Noise::off(), {});
  host_cuda::reset_traffic();
  engine.rehearse(batch, Noise::off(), {});
  std::map<std::string, Moved> moved;
  for (auto const& t : host_cuda::traffic())
    moved[t.name] = {static_cast<double>(t.launches), static_cast<double>(t.bytes_read + t.bytes_written)};
  return moved;
}

}  // namespace

TEST_CASE_TEMPLATE("a layer launches what the bound says, and its products move what it says", Order, norm::Post,
                   norm::Pre) {
  constexpr int rows = 256;
  const auto one = step<Layers<1, Order>>(rows), three = step<Layers<3, Order>>(rows);
  double launches = 0, product_bytes = 0, other_bytes = 0;
  for (auto const& [name, moved] : three) {
    const auto before = one.find(name);
    const Moved rest = before == one.end() ? Moved{} : before->second;
    if (name.find("adamw") != name.npos || name.find("square_sums") != name.npos || name.starts_with("fill"))
      continue;  // of all parameters at once
    launches += (moved.launches - rest.launches) / 2;
    (name == "product" ? product_bytes : other_bytes) += (moved.bytes - rest.bytes) / 2;
  }
  double said_launches = 0, said_product_bytes = 0, said_other_bytes = 0;
  for (auto const& operation : device_operations<Layers<1, Order>>(rows, 64)) {
    if (!operation.layer) continue;
    const bool product = operation.name.find("norms") == std::string_view::npos &&
                         operation.name.find("attention") == std::string_view::npos;
    said_launches += operation.launches;
    (product ? said_product_bytes : said_other_bytes) += operation.bytes;
  }
  CHECK(launches == said_launches);
  CHECK(launches <= 30);
  CHECK(product_bytes == doctest::Approx(said_product_bytes).epsilon(.01));
  // Device code loads a row again where it lies in the cache, and every thread its tile: the bound counts memory once.
  CHECK(other_bytes > said_other_bytes);
  CHECK(other_bytes < 3 * said_other_bytes);
}

TEST_CASE("a layer of the paper's slim encoder at 16,384 rows is bound to less than 110 numbers a channel and row") {
  for (const int rows : {2048, 16384}) {
    double bytes = 0;
    for (auto const& operation : device_operations<PaperWidth>(rows, 780))
      if (operation.layer) bytes += operation.bytes;
    CHECK(bytes / 12 / (2. * rows * 384) < 110);
  }
}
