// Pretrains a spec on a source of speech until a budget is spent.
#pragma once

#include <utility>

#include <sotto/backend/cpu/cpu.hpp>
#include <sotto/train/model_learner.hpp>
#include <sotto/train/training.hpp>

namespace sotto::detail::inline SOTTO_ABI {

/// A base, so that the training ends before its learner does.
template <class Model, class B> struct LearnerHolder { ModelLearner<Model, B> learner; };

}  // namespace sotto::detail::inline SOTTO_ABI

namespace sotto::inline SOTTO_ABI {

/// Pretrains Model on a backend. Construction reads the corpus, learns labels and allocates; step() or run() train.
/// Throws Error for options, data and files that cannot be; stopping, running out and diverging are Outcomes.
template <class Model, class B = Cpu<float>>
class Pretrainer : detail::LearnerHolder<detail::sound<Model>, B>, public Training {
 public:
  using Options = PretrainerOptions<detail::sound<Model>>;

  Pretrainer(AnySource source, Options const& options)
      : detail::LearnerHolder<detail::sound<Model>, B>{ModelLearner<detail::sound<Model>, B>(options)},
        Training(this->learner, std::move(source), options.run()) {}

  auto& engine() { return this->learner.engine(); }

 private:
  [[no_unique_address]] detail::Door<Model, detail::broken_rule<Model>()> door_;
};

}  // namespace sotto::inline SOTTO_ABI
