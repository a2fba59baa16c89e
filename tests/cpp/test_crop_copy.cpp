// Crops of CropData have the same bits for each instruction set as value by value.

#include "crop_copy.hpp"

#include <vector>

#include "values.hpp"
#include "vector_units.hpp"

namespace {

TEST(CropCopy, TheSameBitsOnEachVectorUnit) {
  const int height = 71, width = 83;
  std::vector<uint8_t> pixels(2 * height * width);
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint8_t>(i * 2654435761u >> 24);
  std::vector<float> mean(pixels.size());
  reference::FillAwayFromZero(static_cast<int>(mean.size()), 4, mean.data());
  const caffe::Picture<uint8_t> picture = {pixels.data(), 2, height, width, height * width, width, 1};
  reference::OnEachVectorUnit([&] {
    for (const int side : {1, 5, 8, 56, 71}) {
      for (const bool mirror : {false, true}) {
        for (const float* image : {static_cast<const float*>(nullptr), static_cast<const float*>(mean.data())}) {
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
