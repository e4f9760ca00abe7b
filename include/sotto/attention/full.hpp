// Every query sees every key of its sequence.
#pragma once

#include <sotto/attention/policy.hpp>

namespace sotto::attention::inline SOTTO_API {

/// Softmax attention over the whole sequence (arXiv 1706.03762).
struct Full : Softmax {};

}  // namespace sotto::attention::inline SOTTO_API
