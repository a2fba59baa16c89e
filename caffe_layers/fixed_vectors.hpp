// For files that keep vectors in arrays, before Highway's headers: vectors whose length the compiler does not know
// cannot stand there. Processors that have them (arm64 with SVE) have NEON too, which such files are compiled for.
#pragma once

#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
