// Ridge regression onto classes, in closed form: the linear probe that has nothing to tune but one
// number.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/core/views.hpp>

namespace sotto::probe::inline SOTTO_ABI {

/// A linear classifier: the class with the largest weights · input + bias. Inputs are raw; the
/// training set's mean and deviation are folded into the numbers.
class RidgeClassifier {
 public:
  using Weights = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  /// weights [inputs, classes], bias [classes].
  RidgeClassifier(Weights weights, Eigen::RowVectorXf bias) : weights_(std::move(weights)), bias_(std::move(bias)) {}

  int inputs() const { return static_cast<int>(weights_.rows()); }
  int classes() const { return static_cast<int>(weights_.cols()); }

  /// The class of each row of inputs [rows, inputs()] into predicted [rows].
  /// Throws Error(internal) if the sizes disagree.
  void predict(Matrix<float const> inputs, std::span<int> predicted) const {
    if (inputs.columns != this->inputs() || predicted.size() != static_cast<std::size_t>(inputs.rows))
      throw_error(ErrorCode::internal,
                  {"ridge: asked to classify ", inputs.rows, " rows of ", inputs.columns, " inputs into ",
                   predicted.size(), " places; the classifier has ", this->inputs(), " inputs"});
    constexpr int block = 256;
    Weights scores;
    for (int first = 0; first < inputs.rows; first += block) {
      const int count = std::min(block, inputs.rows - first);
      const Eigen::Map<Weights const, 0, Eigen::OuterStride<>> rows(inputs.row(first), count, inputs.columns,
                                                                    Eigen::OuterStride<>(inputs.stride));
      scores.noalias() = rows * weights_;
      scores.rowwise() += bias_;
      for (int i = 0; i < count; ++i) {
        Eigen::Index best = 0;
        scores.row(i).maxCoeff(&best);
        predicted[static_cast<std::size_t>(first + i)] = static_cast<int>(best);
      }
    }
  }

 private:
  Weights weights_;
  Eigen::RowVectorXf bias_;
};

/// A training set made ready to be solved for several strengths of regularisation.
///
/// Minimises |Y - X W|² + lambda |W|² over one-hot targets Y, both centred and the inputs divided
/// by their deviation. The Gram matrix is that of the smaller side: X Xᵀ [rows, rows] where there
/// are more inputs than rows (then W = Xᵀ (X Xᵀ + lambda)⁻¹ Y), else Xᵀ X [inputs, inputs]. It is
/// summed in float by blocks and factorised in double. The result does not depend on the threads.
class Ridge {
 public:
  /// inputs [rows, n], labels [rows] in 0..classes-1. Throws Error(data) if a class has no row or
  /// an input is not finite, Error(internal) if the sizes disagree.
  Ridge(Matrix<float const> inputs, std::span<int const> labels, int classes, Executor& executor) {
    const int rows = inputs.rows, width = inputs.columns;
    if (rows < 1 || width < 1 || labels.size() != static_cast<std::size_t>(rows))
      throw_error(ErrorCode::internal,
                  {"ridge: ", rows, " rows of ", width, " inputs cannot go with ", labels.size(), " labels"});
    standardise(inputs);
    one_hot(labels, classes);
    dual_ = width > rows;
    if (!dual_) moments_.noalias() = inputs_.transpose() * targets_;
    gram(executor);
    mean_eigenvalue_ = gram_.diagonal().cast<double>().mean();
    if (!(mean_eigenvalue_ > 0)) mean_eigenvalue_ = 1;  // constant inputs: any lambda gives weights of 0
  }

  /// The classifier for one strength: lambda = ridge × the mean eigenvalue of the Gram matrix, so
  /// that the same numbers suit any width and any number of rows. ridge > 0. Calls may run at once.
  RidgeClassifier solve(double ridge) const {
    if (!(ridge > 0) || !std::isfinite(ridge))
      throw_error(ErrorCode::usage, {"ridge: the strength must be above 0, and is ", ridge, "; try 0.1"});
    Eigen::MatrixXd system = gram_.cast<double>();
    system.diagonal().array() += ridge * mean_eigenvalue_;
    const Eigen::LLT<Eigen::Ref<Eigen::MatrixXd>> factor(system);
    if (factor.info() != Eigen::Success)
      throw_error(ErrorCode::data, {"ridge: the features are so nearly alike that strength ", ridge,
                                    " leaves no solution; use a larger one"});
    RidgeClassifier::Weights weights;
    if (dual_) {
      const Rowwise solution = factor.solve(targets_.cast<double>()).cast<float>();
      weights.noalias() = inputs_.transpose() * solution;
    } else {
      weights = factor.solve(moments_.cast<double>()).cast<float>();
    }
    weights.array().colwise() *= scale_.transpose().array();  // back to raw inputs
    Eigen::RowVectorXf bias = priors_;
    bias.noalias() -= mean_ * weights;
    return {std::move(weights), std::move(bias)};
  }

  /// Whether the Gram matrix is over rows (true) or over inputs.
  bool dual() const { return dual_; }

 private:
  using Rowwise = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  void standardise(Matrix<float const> inputs) {
    const int rows = inputs.rows, width = inputs.columns;
    const Eigen::Map<Rowwise const, 0, Eigen::OuterStride<>> raw(inputs.begin, rows, width,
                                                                 Eigen::OuterStride<>(inputs.stride));
    Eigen::RowVectorXd sum = Eigen::RowVectorXd::Zero(width), square = sum;
    for (int i = 0; i < rows; ++i) sum += raw.row(i).cast<double>();
    sum /= rows;
    for (int i = 0; i < rows; ++i) square += (raw.row(i).cast<double>() - sum).cwiseAbs2();
    if (!sum.allFinite() || !square.allFinite())
      throw_error(ErrorCode::data, {"ridge: a feature is not a finite number; leave out utterances with NaN samples"});
    mean_ = sum.cast<float>();
    scale_.resize(width);
    for (int j = 0; j < width; ++j) {
      const double deviation = std::sqrt(square[j] / rows);
      // A constant input tells nothing; dividing by its rounding noise would make it loud.
      scale_[j] = deviation > 1e-6 * std::max(1e-6, std::abs(sum[j])) ? static_cast<float>(1 / deviation) : 0.f;
    }
    inputs_.resize(rows, width);
    for (int i = 0; i < rows; ++i) inputs_.row(i) = (raw.row(i) - mean_).cwiseProduct(scale_);
  }

  void one_hot(std::span<int const> labels, int classes) {
    targets_ = Rowwise::Zero(inputs_.rows(), classes);
    for (std::size_t i = 0; i < labels.size(); ++i) {
      if (labels[i] < 0 || labels[i] >= classes)
        throw_error(ErrorCode::internal, {"ridge: label ", labels[i], " is outside 0..", classes - 1});
      targets_(static_cast<Eigen::Index>(i), labels[i]) = 1;
    }
    priors_ = targets_.colwise().mean();
    for (int c = 0; c < classes; ++c)
      if (priors_[c] == 0) throw_error(ErrorCode::data, {"ridge: class ", c, " has no training example; give it some"});
    targets_.rowwise() -= priors_;
  }

  // The lower triangle in square blocks, a fixed number of rows each, so that sums never depend on
  // the threads.
  void gram(Executor& executor) {
    constexpr int block = 256;
    const int size = static_cast<int>(dual_ ? inputs_.rows() : inputs_.cols());
    const int blocks = (size + block - 1) / block;
    gram_.resize(size, size);
    executor.run(blocks * (blocks + 1) / 2, [&](int task) {
      int i = 0;
      while ((i + 1) * (i + 2) / 2 <= task) ++i;
      const int j = task - i * (i + 1) / 2;
      const int y = i * block, x = j * block;
      const int height = std::min(block, size - y), width = std::min(block, size - x);
      if (dual_)
        gram_.block(y, x, height, width).noalias() =
            inputs_.middleRows(y, height) * inputs_.middleRows(x, width).transpose();
      else
        gram_.block(y, x, height, width).noalias() =
            inputs_.middleCols(y, height).transpose() * inputs_.middleCols(x, width);
      if (i != j) gram_.block(x, y, width, height) = gram_.block(y, x, height, width).transpose();
    });
  }

  Rowwise inputs_, targets_, gram_, moments_;
  Eigen::RowVectorXf mean_, scale_, priors_;
  double mean_eigenvalue_ = 0;
  bool dual_ = false;
};

}  // namespace sotto::probe::inline SOTTO_ABI
