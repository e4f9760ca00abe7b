// How blocks share the rows of packed sequences: 64 rows of one sequence each.
#pragma once

#include <sotto/backend/cuda/device.cuh>

namespace sotto::cuda::inline SOTTO_ABI {

inline constexpr int tile_rows = 64;

/// Frames [begin, min(begin + 64, length)) of a sequence whose rows are [first, first + length). Tiles cover every row:
/// those after the last sequence stand in tiles of kind `tail`, whose rows a kernel writes as zeros.
struct alignas(16) Tile {
  enum : int { frames, tail, unused };
  int first, length, begin, kind;
};

/// Tiles that any batch of so many rows and sequences at most may need.
constexpr int most_tiles(int rows, int sequences) { return rows / tile_rows + sequences + 1; }

/// tiles [count] from offsets [sequences + 1]; rows: of the whole range, tail included.
template <class = void>
__global__ void __launch_bounds__(128) plan_tiles(int const* offsets, int sequences, int rows, Tile* tiles, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= count) return;
  int passed = 0;
  for (int s = 0; s <= sequences; ++s) {
    const int first = offsets[s], length = (s < sequences ? offsets[s + 1] : rows) - first;
    const int n = (length + tile_rows - 1) / tile_rows;
    if (i < passed + n) {
      tiles[i] = {first, length, (i - passed) * tile_rows, s < sequences ? Tile::frames : Tile::tail};
      return;
    }
    passed += n;
  }
  tiles[i] = {0, 0, 0, Tile::unused};
}

}  // namespace sotto::cuda::inline SOTTO_ABI
