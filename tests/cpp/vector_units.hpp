// The instruction sets for which kernels are compiled.

#ifndef TESTS_CPP_VECTOR_UNITS_HPP_
#define TESTS_CPP_VECTOR_UNITS_HPP_

#include <gtest/gtest.h>
#include <hwy/targets.h>

namespace reference {

/// Call run() once for each instruction set, and restore the default.
template <typename Run>
void OnEachVectorUnit(const Run& run) {
  const auto all = hwy::SupportedTargets();
  int kinds = 0;
  for (auto rest = all; rest != 0; rest &= rest - 1) {
    const auto target = rest & ~(rest - 1);
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().DeInit();
    run();
    ++kinds;
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
  EXPECT_GT(kinds, 0);
}

}  // namespace reference

#endif  // TESTS_CPP_VECTOR_UNITS_HPP_
