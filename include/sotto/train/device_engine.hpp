// The arithmetic of training on a GPU: a batch is one range of rows, and a step is recorded once and replayed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include <sotto/backend/cuda/cuda.hpp>
#include <sotto/core/buffer.hpp>
#include <sotto/data/batch.hpp>
#include <sotto/optim/schedule.hpp>
#include <sotto/train/batch_measures.hpp>
#include <sotto/train/engine.hpp>
#include <sotto/train/network.hpp>
#include <sotto/train/options.hpp>

namespace sotto::inline SOTTO_ABI {

/// What the host sends for a batch, in one piece: numbers, then row numbers, then features, or samples to compute them
/// from. Offsets are bytes.
struct DeviceBatchLayout {
  int rows, sequences, features;
  int samples;  ///< that a batch may bring instead of features

  constexpr std::size_t offsets() const { return padded(sizeof(cuda::StepInput)); }
  constexpr std::size_t utterances() const { return offsets() + ints(sequences + 1); }
  constexpr std::size_t starts() const { return utterances() + ints(sequences); }
  constexpr std::size_t masked() const { return starts() + ints(sequences); }
  constexpr std::size_t unmasked() const { return masked() + ints(rows); }
  constexpr std::size_t targets() const { return unmasked() + ints(rows); }
  constexpr std::size_t sample_offsets() const { return targets() + ints(2 * rows); }
  constexpr std::size_t values() const { return sample_offsets() + ints(sequences + 1); }
  constexpr std::size_t feature_count() const {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(features);
  }
  constexpr std::size_t value_count() const { return std::max(static_cast<std::size_t>(samples), feature_count()); }
  constexpr std::size_t bytes() const { return values() + sizeof(float) * value_count(); }

  /// Whether a batch brings samples.
  static bool has_samples(Batch const& batch) { return !batch.lanes.empty() && !batch.lanes[0].samples.empty(); }

  /// Writes a batch there; rows past its own are zeros, and entries past its own are -1.
  SOTTO_COLD void fill(Batch const& batch, std::byte* at) const {
    auto* const offset = reinterpret_cast<int*>(at + offsets());
    auto* const utterance = reinterpret_cast<int*>(at + utterances());
    auto* const start = reinterpret_cast<int*>(at + starts());
    auto* const mask = reinterpret_cast<int*>(at + masked());
    auto* const rest = reinterpret_cast<int*>(at + unmasked());
    auto* const target = reinterpret_cast<int*>(at + targets());
    auto* const sample_offset = reinterpret_cast<int*>(at + sample_offsets());
    auto* const value = reinterpret_cast<float*>(at + values());
    const bool raw = has_samples(batch);
    std::size_t filled = 0;  // of the values
    int s = 0, row = 0, m = 0, u = 0;
    offset[0] = sample_offset[0] = 0;
    for (PackedLane const& lane : batch.lanes) {
      for (int i = 0; i < lane.sequences(); ++i, ++s) {
        const auto k = static_cast<std::size_t>(i);
        utterance[s] = lane.utterances[k];
        start[s] = lane.starts[k];
        offset[s + 1] = row + lane.offsets[k + 1];
        sample_offset[s + 1] = raw ? static_cast<int>(filled) + lane.sample_offsets[k + 1] : 0;
      }
      const std::size_t n = lane.masked.size();
      for (std::size_t i = 0; i < n; ++i, ++m) {
        mask[m] = row + lane.masked[i];
        target[m] = lane.targets.empty() ? 0 : lane.targets[i];
      }
      for (std::size_t i = 0; i < lane.unmasked.size(); ++i, ++u) {
        rest[u] = row + lane.unmasked[i];
        target[rows + u] = lane.targets.empty() ? 0 : lane.targets[n + i];
      }
      const std::size_t count =
          raw ? lane.samples.size() : static_cast<std::size_t>(lane.rows()) * static_cast<std::size_t>(features);
      std::memcpy(value + filled, raw ? lane.samples.data() : lane.features.data(), sizeof(float) * count);
      filled += count;
      row += lane.rows();
    }
    for (; s < sequences; ++s) {
      utterance[s] = start[s] = 0;
      offset[s + 1] = row;
      sample_offset[s + 1] = sample_offset[s];
    }
    std::fill(mask + m, mask + rows, -1);
    std::fill(rest + u, rest + rows, -1);
    std::fill(target + m, target + rows, -1);
    std::fill(target + rows + u, target + 2 * rows, -1);
    std::fill(value + filled, value + value_count(), 0.f);
  }

 private:
  static constexpr std::size_t padded(std::size_t bytes) { return (bytes + 63) / 64 * 64; }
  static constexpr std::size_t ints(int n) { return padded(sizeof(int) * static_cast<std::size_t>(n)); }
};

/// A spec's parameters on a GPU, and what a batch does to them. B: Cuda<Storage>.
template <class Model, class B> class DeviceEngine {
 public:
  using Net = Network<Model, B>;
  using Encoder = typename Net::EncoderLayer;
  using E = typename B::Element;
  using R = typename B::Master;
  using Index = typename B::Index;
  using ObjectiveOptions = typename Model::Objective::Options;
  static constexpr auto const& table = parameter_table<Model>;
  static constexpr std::size_t size = count(table);
  static constexpr int classes = Model::Objective::classes, features = Net::features;
  static constexpr int steps_ahead = 1;
  /// Whether log-mel energies are computed on the device; augmentations work on the host's.
  static constexpr bool raw = Model::Augmentation::empty && requires { Model::Frontend::normalisation; };
  static_assert(Model::Objective::Statistics::size == 0,
                "sotto: an objective with batch statistics cannot be trained on a GPU yet");

  /// Bytes of device memory that an engine holds for batches of at most capacity.rows rows; workspaces of products come
  /// on top.
  static constexpr std::size_t bytes(Capacity capacity) {
    return 4 * sizeof(float) * stride + Net::weight_bytes() + Net::activation_bytes(capacity) +
           3 * layout_for(capacity, first_sequences(capacity)).bytes();
  }

  /// Error(device) where there is no such device, or where it has not that much memory.
  SOTTO_COLD static void expect_memory(Capacity capacity, int device) {
    const cuda::DeviceFacts facts = cuda::device_facts(device);
    const std::size_t needed = bytes(capacity) + (std::size_t{320} << 20);  // products' workspace and modules, scratch
    if (needed > facts.free_bytes)
      throw_error(ErrorCode::device,
                  {"training needs ", static_cast<double>(needed >> 20) / 1024, " GiB of GPU memory, and ", facts.name,
                   " has ", static_cast<double>(facts.free_bytes >> 20) / 1024,
                   " GiB free: use smaller batch.rows, a smaller model or another device"});
  }

  SOTTO_COLD DeviceEngine(Capacity capacity, DeviceOptions const& options)
      : backend_(options.number, options.tf32, options.tune), options_(options), capacity_(capacity),
        host_values_(size * sizeof(float)), host_first_(size * sizeof(float)), host_second_(size * sizeof(float)) {
    expect_memory(capacity, options.number);
    numbers_ = cuda::DeviceMemory(4 * sizeof(float) * stride);
    prepared_ = cuda::DeviceMemory(Net::weight_bytes());
    Arena weights(prepared_.begin());
    weights_ = Net::carve_weights(weights);
    master_ = Net::template carve_parameters<R const>(number(0));
    activations_ = cuda::DeviceMemory(Net::activation_bytes(capacity));
    outputs_ = cuda::DeviceMemory(output_bytes());
    results_ = cuda::Results(backend_.context(), output_bytes());
    make_room(first_sequences(capacity));
  }

  /// The numbers on the host: what prepare() takes, and what settle() brings.
  std::span<float> values() { return {host_values_.template as<float>(), size}; }
  std::span<float> first_moments() { return {host_first_.template as<float>(), size}; }
  std::span<float> second_moments() { return {host_second_.template as<float>(), size}; }
  /// Of the last step, brought from the device.
  SOTTO_COLD std::vector<float> gradients() {
    cuda::use_device(options_.number);
    std::vector<float> on_host(size);
    backend_.copy_to_host(on_host.data(), reinterpret_cast<std::byte const*>(number(3)), size * sizeof(float));
    return on_host;
  }
  B& backend() { return backend_; }
  /// Kernels, products, copies and fills of a training step, once one was recorded.
  std::size_t nodes() const { return training_.nodes(); }

  /// Brings the host's numbers to the device and makes the copies that products read.
  SOTTO_COLD void prepare() {
    cuda::use_device(options_.number);
    backend_.wait();
    const auto bring = [&](std::size_t i, Buffer const& from) {
      backend_.copy_to_device(reinterpret_cast<std::byte*>(number(i)), from.begin(), size * sizeof(float));
    };
    bring(0, host_values_);
    bring(1, host_first_);
    bring(2, host_second_);
    backend_.clear_counts({reinterpret_cast<Index*>(outputs_.begin()), output_bytes() / sizeof(int)});
    prepare_parts();
    backend_.plan_update(table, number(0), number(3), number(1), number(2));
    backend_.copy_weights();
    backend_.wait();
  }

  /// As Learner has them.
  SOTTO_COLD void submit(Batch const& batch, Noise const& noise, ObjectiveOptions const& options,
                         OptimizerOptions const& optimizer, double rate, std::uint64_t step) {
    cuda::StepInput input{};
    input.updates = 1;
    const auto corrected = [&](double beta) { return 1 - std::pow(beta, static_cast<double>(step)); };
    input.beta1 = static_cast<float>(optimizer.beta1);
    input.rest1 = static_cast<float>(1 - optimizer.beta1);
    input.beta2 = static_cast<float>(optimizer.beta2);
    input.rest2 = static_cast<float>(1 - optimizer.beta2);
    input.rate = static_cast<float>(rate / corrected(optimizer.beta1));
    input.root = static_cast<float>(1 / std::sqrt(corrected(optimizer.beta2)));
    input.epsilon = static_cast<float>(optimizer.epsilon);
    input.shrink = static_cast<float>(rate * optimizer.weight_decay);
    input.clip = static_cast<float>(optimizer.clip);
    enqueue(batch, noise, options, input, training_, true);
    under_way_.push_back(target_perplexity(batch));
  }
  SOTTO_COLD StepResult collect() {
    const Read read = this->read();
    StepResult result{measures(read), read.output.gradient_norm};
    result.measures.target_perplexity = under_way_.front();
    under_way_.erase(under_way_.begin());
    return result;
  }
  SOTTO_COLD void settle() {
    cuda::use_device(options_.number);
    const auto fetch = [&](std::size_t i, Buffer const& to) {
      backend_.copy_to_host(to.begin(), reinterpret_cast<std::byte const*>(number(i)), size * sizeof(float));
    };
    fetch(0, host_values_);
    fetch(1, host_first_);
    fetch(2, host_second_);
  }
  SOTTO_COLD StepResult rehearse(Batch const& batch, Noise const& noise, ObjectiveOptions const& options) {
    enqueue(batch, noise, options, {}, training_, true);
    const Read read = this->read();
    return {measures(read), read.output.gradient_norm};
  }
  /// Loss of a batch alone. spread: deviation of the encoder's output over the batch's rows, mean over channels.
  SOTTO_COLD BatchMeasures measure(Batch const& batch, ObjectiveOptions const& options, double* spread) {
    enqueue(batch, Noise::off(), options, {}, evaluation_, false);
    const Read read = this->read();
    BatchMeasures result = measures(read);
    result.target_perplexity = target_perplexity(batch);
    if (spread != nullptr) *spread = read.output.spread;
    return result;
  }

 private:
  struct Read {
    cuda::StepOutput output;
    std::span<int const> histogram;
  };

  static constexpr DeviceBatchLayout layout_for(Capacity capacity, int sequences) {
    using Frontend = typename Model::Frontend;
    const int beside = static_cast<int>(Frontend::samples_for(1)) - Frontend::hop;  // of a sequence, beside its hops
    return {capacity.rows, sequences, features, raw ? capacity.rows * Frontend::hop + sequences * beside : 0};
  }
  /// Sequences that there is room for at first; a batch with more makes more.
  static constexpr int first_sequences(Capacity capacity) {
    return 16 + 4 * capacity.rows / std::max(1, capacity.longest);
  }
  static constexpr std::size_t output_bytes() {
    return (sizeof(cuda::StepOutput) + 63) / 64 * 64 + sizeof(int) * static_cast<std::size_t>(classes);
  }
  /// From one buffer of numbers to the next: each begins where 16 bytes can be loaded at once.
  static constexpr std::size_t stride = (size + 63) / 64 * 64;
  R* number(std::size_t i) const { return numbers_.template as<float>() + i * stride; }

  /// Buffers for batches of so many sequences; what was recorded before is for fewer.
  SOTTO_COLD void make_room(int sequences) {
    backend_.wait();
    training_ = {};
    evaluation_ = {};
    layout_ = {};  // until there is room: no batch fits
    const DeviceBatchLayout layout = layout_for(capacity_, sequences);
    feed_ = cuda::Feed();
    feed_ = cuda::Feed(backend_.context(), layout.bytes());
    current_ = cuda::DeviceMemory();
    current_ = cuda::DeviceMemory(layout.values());
    features_ = cuda::DeviceMemory();
    features_ = cuda::DeviceMemory(static_cast<std::size_t>(capacity_.rows) * features * element_bytes);
    tiles_ = cuda::DeviceMemory();
    tiles_ = cuda::DeviceMemory(B::tile_bytes(capacity_.rows, sequences));
    layout_ = layout;
  }
  SOTTO_COLD void prepare_parts() {
    for (int part = 0; part < Net::prepare_parts; ++part) Net::prepare(backend_, master_, weights_, part);
  }

  /// Sends a batch and enqueues a step on it, and the copy of what it leaves behind.
  SOTTO_COLD void enqueue(Batch const& batch, Noise const& noise, ObjectiveOptions const& options,
                          cuda::StepInput input, cuda::Recording& recording, bool trains) {
    cuda::use_device(options_.number);
    int sequences = 0;
    for (PackedLane const& lane : batch.lanes) sequences += lane.sequences();
    if (batch.rows > capacity_.rows)
      throw_error(ErrorCode::internal,
                  {"a batch of ", batch.rows, " rows came where ", capacity_.rows, " were planned"});
    if (sequences > layout_.sequences) make_room(2 * sequences);
    input.masked = static_cast<int>(batch.masked);
    input.rows = static_cast<int>(batch.rows);
    input.cursor = noise.cursor;
    input.skipped = noise.skipped;
    Noise recorded = noise;  // what differs from step to step is in the input
    recorded.cursor = 0;
    recorded.skipped = 0;
    std::byte* const at = feed_.fill();
    std::memcpy(at, &input, sizeof input);
    layout_.fill(batch, at);
    std::byte const* const sent = feed_.send();
    backend_.copy_on_device(current_.begin(), sent, layout_.values());
    compute_features(DeviceBatchLayout::has_samples(batch),
                     {reinterpret_cast<R const*>(sent + layout_.values()), layout_.value_count()});
    feed_.release();
    const auto step = [&] { run(recorded, options, trains); };
    if (options_.record && recording) {
      backend_.replay(recording);
    } else {
      step();  // enqueued one by one: plans and scratch are made on the way
      if (options_.record) recording = backend_.record(step);
    }
    results_.take(outputs_.begin());
  }

  /// What the step reads, from what was sent.
  SOTTO_COLD void compute_features(bool from_samples, Array<R const> sent) {
    auto* const x = reinterpret_cast<E*>(features_.begin());
    if (!from_samples) {
      backend_.convert(sent, {x, layout_.feature_count()});
      return;
    }
    if constexpr (raw) {
      using Frontend = typename Model::Frontend;
      const auto ints = [&](std::size_t offset) { return reinterpret_cast<Index const*>(current_.begin() + offset); };
      R const *mean = nullptr, *deviation = nullptr;
      if constexpr (Frontend::needs_corpus) {
        mean = master_.frontend.mean.begin;
        deviation = master_.frontend.deviation.begin;
      }
      backend_.log_mel({Frontend::bands, Frontend::stack, Frontend::normalisation}, sent,
                       ints(layout_.sample_offsets()), ints(layout_.offsets()), layout_.sequences, capacity_.rows, mean,
                       deviation, x);
    }
  }

  /// Everything that a step enqueues.
  SOTTO_COLD void run(Noise const& noise, ObjectiveOptions const& options, bool trains) {
    const auto ints = [&](std::size_t offset) { return reinterpret_cast<Index const*>(current_.begin() + offset); };
    const auto* const input = reinterpret_cast<cuda::StepInput const*>(current_.begin());
    const int rows = capacity_.rows;
    const Lane<Index> lane{ints(layout_.offsets()),
                           ints(layout_.utterances()),
                           ints(layout_.starts()),
                           layout_.sequences,
                           rows,
                           capacity_.longest,
                           ints(layout_.masked()),
                           ints(layout_.unmasked()),
                           rows,
                           rows,
                           ints(layout_.targets())};
    auto* const output = reinterpret_cast<cuda::StepOutput*>(outputs_.begin());
    const auto in_output = [&](std::size_t offset) { return outputs_.begin() + offset; };
    auto* const histogram = reinterpret_cast<OnDevice<int>*>(in_output((sizeof(cuda::StepOutput) + 63) / 64 * 64));
    backend_.begin_step(lane, input, output, tiles_.begin());
    if constexpr (classes > 0) backend_.clear_counts({histogram, static_cast<std::size_t>(classes)});
    Measures<OnDevice<double>> measures{
        *reinterpret_cast<OnDevice<double>*>(in_output(offsetof(cuda::StepOutput, loss))),
        reinterpret_cast<OnDevice<int>*>(in_output(offsetof(cuda::StepOutput, correct))),
        reinterpret_cast<OnDevice<int>*>(in_output(offsetof(cuda::StepOutput, predicted))),
        classes > 0 ? histogram : nullptr};
    const BatchScope<B> scope{ints(offsetof(cuda::StepInput, masked)), ints(offsetof(cuda::StepInput, rows)), nullptr};
    Arena arena(activations_.begin());
    auto a = Net::carve(arena, capacity_);
    const Rows<E const, features> x{reinterpret_cast<E const*>(features_.begin()), rows};
    Net::forward(backend_, weights_, lane, noise, options, scope, x, a, measures);
    if (!trains) {
      backend_.spread(a.encoder.output,
                      *reinterpret_cast<OnDevice<double>*>(in_output(offsetof(cuda::StepOutput, spread))));
      return;
    }
    const auto gradients = Net::template carve_parameters<R>(number(3));
    backend_.clear(Array<R>{number(3), size});
    Net::backward(backend_, weights_, gradients, lane, noise, options, scope, x, a);
    Net::finish(backend_, master_, gradients);
    backend_.update();
    prepare_parts();
  }

  SOTTO_COLD Read read() {
    cuda::use_device(options_.number);
    std::byte const* const at = results_.read();
    Read read;
    std::memcpy(&read.output, at, sizeof read.output);
    read.histogram = {reinterpret_cast<int const*>(at + (sizeof(cuda::StepOutput) + 63) / 64 * 64),
                      static_cast<std::size_t>(classes)};
    return read;
  }
  static BatchMeasures measures(Read const& read) {
    BatchMeasures m;
    m.loss = read.output.loss;
    m.masked_accuracy =
        read.output.predicted > 0 ? static_cast<double>(read.output.correct) / read.output.predicted : 0;
    m.code_perplexity = perplexity(std::vector<double>(read.histogram.begin(), read.histogram.end()));
    return m;
  }
  static double target_perplexity(Batch const& batch) {
    std::vector<double> histogram(static_cast<std::size_t>(classes));
    if constexpr (classes > 0)
      for (auto const& lane : batch.lanes)
        for (std::size_t i = 0; i < lane.masked.size(); ++i) ++histogram[static_cast<std::size_t>(lane.targets[i])];
    return perplexity(histogram);
  }

  static constexpr std::size_t element_bytes = sizeof(typename detail::ValueOf<E>::type);

  B backend_;
  DeviceOptions options_;
  Capacity capacity_;
  Buffer host_values_, host_first_, host_second_;
  cuda::DeviceMemory numbers_;  ///< values, first and second moments, gradients
  cuda::DeviceMemory prepared_, activations_, outputs_;
  DeviceBatchLayout layout_{};
  cuda::Feed feed_;
  cuda::DeviceMemory current_, features_, tiles_;  ///< of the step that runs
  cuda::Results results_;
  typename Net::Weights weights_{};
  typename Net::Master master_{};
  cuda::Recording training_, evaluation_;
  std::vector<double> under_way_;  ///< target perplexities of the steps not yet collected
};

/// On a device a batch is one lane.
template <class Model, class Storage> struct EngineOf<Model, Cuda<Storage>> {
  using type = DeviceEngine<Model, Cuda<Storage>>;
  static constexpr bool raw = type::raw;
  static LanePacking packing(RunOptions const&, int batch_rows) { return {batch_rows, 1}; }
  static void expect(RunOptions const& options, Capacity capacity) {
    constexpr int most = 1 << 21;  // samples of a batch are counted in an int
    if (capacity.rows > most)
      throw_error(ErrorCode::usage, {"batch.rows, held_out.rows and the frames of batch.crop are at most ", most,
                                     " on a GPU, not ", capacity.rows});
    type::expect_memory(capacity, options.device.number);
  }
  static std::unique_ptr<type> make(RunOptions const& options, Capacity capacity) {
    return std::make_unique<type>(capacity, options.device);
  }
};

}  // namespace sotto::inline SOTTO_ABI
