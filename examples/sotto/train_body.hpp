// A run of a model on a backend, whichever it is.
#pragma once

#include <utility>

#include <sotto/train/pretrainer.hpp>

#include "models.hpp"

namespace program {

/// 20 ms frames a step: few for a tiny model, which needs many steps more than it needs large ones.
template <class Model> constexpr int default_rows = Model::shape.width < 256 ? 1500 : 8000;

template <class Model, class B>
RunEnd train_on(PretrainRequest const& request, sotto::AnySource source, RunWatch const& watch) {
  sotto::PretrainerOptions<Model> options;
  options.budget = sotto::Budget::parse(request.budget);
  options.seed = request.seed;
  options.slots = request.slots;
  options.batch = request.batch;
  if (options.batch.rows == 0) options.batch.rows = default_rows<Model>;
  options.encoder = request.encoder;
  options.objective.mask = request.mask;
  options.optimizer = request.optimizer;
  options.held_out = request.held_out;
  options.exclude_test_split = request.exclude_test_split;
  options.checkpoint.directory = request.out;
  options.checkpoint.every = request.save_every;
  options.checkpoint.resume = request.resume;
  options.on_preparation = watch.on_preparation;
  options.on_step = watch.on_step;
  options.stop = watch.stop;
  options.executor = watch.executor;
  options.device.number = request.gpu.value_or(0);
  sotto::Pretrainer<Model, B> trainer(std::move(source), std::move(options));
  RunStart start;
  start.train = trainer.division().train.size();
  start.held_out = trainer.division().held_out.size();
  for (auto const& crop : trainer.division().evaluated)
    start.held_out_seconds += crop.frames * Model::Frontend::hop / 16000.;
  start.labels = trainer.label_cost();
  start.budget = trainer.budget();
  start.step = trainer.steps();
  start.next_step = trainer.next_step_cost();
  start.next_step_seconds = trainer.next_step_audio_seconds();
  start.slots = trainer.slots();
  start.precision = trainer.precision();
  watch.on_start(start);
  RunEnd end;
  end.outcome = trainer.run();
  end.reason = trainer.reason();
  end.step = trainer.steps();
  end.spent = trainer.spent();
  end.seconds = trainer.seconds();
  end.audio_seconds = trainer.audio_seconds();
  end.history = trainer.history();
  if (!end.history.training().empty()) end.training = end.history.training().back();
  if (!end.history.held_out().empty()) end.held_out = end.history.held_out().back();
  end.checkpoint = trainer.checkpoint();
  return end;
}

}  // namespace program
