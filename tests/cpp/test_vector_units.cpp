// The kernels as they are on each kind of vector unit that this processor has, the plainest included.

#include <hwy/targets.h>

#include "crop_copy.hpp"
#include "rectifier.hpp"
#include "reference.hpp"

namespace {

/// Calls run() once for each kind, and gives all back at the end.
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

template <typename Dtype>
class RectifierVectorUnits : public testing::Test {};
typedef testing::Types<float, double> Dtypes;
TYPED_TEST_SUITE(RectifierVectorUnits, Dtypes);

TYPED_TEST(RectifierVectorUnits, RectifiersAreThoseOfTheFormula) {
  OnEachVectorUnit([] {
    for (const size_t inner : {1, 2, 3, 49, 61, 64, 67, 131, 4097}) {
      for (const size_t channels : {1, 3, 17}) {
        const size_t count = 5 * channels * inner;
        std::vector<TypeParam> x(count), dy(count), y(count, 7), dx(count, 7), kept(count, 7);
        std::vector<TypeParam> slopes(channels), dslopes(channels);
        reference::FillAwayFromZero(count, 1, x.data());
        reference::FillAwayFromZero(count, 2, dy.data());
        reference::FillAwayFromZero(channels, 3, slopes.data());
        std::vector<double> expected_y(count), expected_dx(count);
        std::vector<long double> sums(channels);
        for (size_t i = 0; i < count; ++i) {
          const size_t c = i / inner % channels;
          expected_y[i] = x[i] > 0 ? x[i] : slopes[c] * static_cast<double>(x[i]);
          expected_dx[i] = x[i] > 0 ? dy[i] : slopes[c] * static_cast<double>(dy[i]);
          if (x[i] <= 0) sums[c] += static_cast<long double>(x[i]) * dy[i];
        }
        caffe::RectifierForward(5, channels, inner, slopes.data(), x.data(), y.data(), kept.data());
        caffe::RectifierBackward(5, channels, inner, slopes.data(), x.data(), dy.data(), dx.data(), dslopes.data());
        reference::ExpectClose(expected_y, y.data(), "y");
        reference::ExpectClose(expected_dx, dx.data(), "dx");
        reference::ExpectClose({sums.begin(), sums.end()}, dslopes.data(), "dslopes", count / channels);
        EXPECT_EQ(x, kept);
      }
    }
  });
}

TEST(CropCopyVectorUnits, CropsAreTheSameBitsOnAll) {
  const int height = 71, width = 83;
  std::vector<uint8_t> pixels(2 * height * width);
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint8_t>(i * 2654435761u >> 24);
  std::vector<float> mean(pixels.size());
  reference::FillAwayFromZero(static_cast<int>(mean.size()), 4, mean.data());
  const caffe::Picture<uint8_t> picture = {pixels.data(), 2, height, width, height * width, width, 1};
  OnEachVectorUnit([&] {
    for (const int side : {1, 5, 8, 56, 71}) {
      for (const bool mirror : {false, true}) {
        for (const float* image : {static_cast<const float*>(nullptr), const_cast<const float*>(mean.data())}) {
          const caffe::Crop crop = {(height - side) / 2, (width - side) / 3, mirror};
          const float value[] = {100.5f, 3.25f};
          const caffe::Normalisation<float> normalisation = {image, image == nullptr ? value : nullptr, 0.37f};
          std::vector<float> made(2 * side * side + 2, -1);  // one more at each end
          caffe::CopyCrop(picture, crop, side, side, normalisation, made.data() + 1);
          EXPECT_EQ(-1, made.front());
          EXPECT_EQ(-1, made.back());
          for (int i = 0; i < 2 * side * side; ++i) {
            const int c = i / side / side, h = i / side % side, w = mirror ? side - 1 - i % side : i % side;
            const int from = (c * height + crop.top + h) * width + crop.left + w;
            const float expected = (static_cast<float>(pixels[from]) - (image ? image[from] : value[c])) * 0.37f;
            ASSERT_EQ(expected, made[1 + i]) << "side " << side << " value " << i;
          }
        }
      }
    }
  });
}

}  // namespace
