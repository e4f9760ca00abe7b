// expect: sotto: a window must not be negative
// errors: 2
#include <sotto/attention/windowed.hpp>

static_assert(sotto::attention::AttentionPolicy<sotto::attention::Windowed<-1>>);
