// SPDX-License-Identifier: Apache-2.0
// The bodies of the GPU's kernels, compiled for a processor: threads run one after the other, forwards or backwards, and all of them do a step before
// any does the next, as if they waited for each other. Shared memory is filled with what is not a number before every tile, so that whatever
// reads before it writes shows in the result, and watched on both sides.

#include <cmath>
#include <limits>
#include <vector>

#include "bias_act.cuh"
#include "filtered_lrelu.cuh"
#include "upfirdn2d.cuh"

namespace {

bool wide_index = false, generic = false, backwards = false;
int overruns = 0;

constexpr int kSome = 37;  // threads of a block: no number divides evenly

template <typename F>
void for_all(int64_t n, F body) {
  for (int64_t i = 0; i < n; ++i) body(backwards ? n - 1 - i : i);
}

template <typename T, typename I, bool BENDS>
void bias_act_all(const BiasAct& p) {
  const int packet = packet_of<T>(p);
  for_all((p.n + packet - 1) / packet, [&](int64_t i) { bias_act_item<T, I, BENDS>(p, packet, static_cast<I>(i)); });
}

template <typename T, typename I>
void upfirdn2d_all(const Upfirdn& p) {
  const auto run = [&](auto item) { for_all(items_of(p), [&](int64_t i) { item(p, static_cast<I>(i)); }); };
  if (!generic && fits<Fixed<1, 1, 4>>(p)) return run(upfirdn2d_item<T, I, Fixed<1, 1, 4>>);
  if (!generic && fits<Fixed<2, 1, 4>>(p)) return run(upfirdn2d_item<T, I, Fixed<2, 1, 4>>);
  if (!generic && fits<Fixed<1, 2, 4>>(p)) return run(upfirdn2d_item<T, I, Fixed<1, 2, 4>>);
  run(upfirdn2d_item<T, I, Free>);
}

template <typename T, typename S>
int filtered_all(const Filtered& p) {
  using A = typename Wide<T>::type;
  const Tiling t = best_tiling<A>(p);
  if (t.shared == 0) return 1;
  constexpr int guard = 64;
  std::vector<Quad<A>> memory(t.shared / kQuad + 1 + 2 * guard);
  A* shared = memory[guard].value;
  const A none = std::numeric_limits<A>::quiet_NaN(), watch = A(12345);
  for_all(t.tiles[0] * t.tiles[1] * p.n * p.channels, [&](int64_t number) {
    for (auto& quad : memory)
      for (A& value : quad.value) value = &value >= shared && &value < shared + t.shared ? none : watch;
    const Tile<T, S> tile(p, t, shared, number);
    for_all(kSome, [&](int64_t i) { tile.load(i, kSome); });
    for_all(kSome, [&](int64_t i) { tile.widen_rows(i, kSome); });
    for_all(kSome, [&](int64_t i) { tile.bend(i, kSome); });
    for_all(kSome, [&](int64_t i) { tile.fold(i, kSome); });
    for_all(kSome, [&](int64_t i) { tile.store(i, kSome); });
    for (const auto& quad : memory)
      for (const A& value : quad.value) overruns += !(&value >= shared && &value < shared + t.shared) && value != watch;
  });
  return 0;
}

template <typename T>
int filtered(const Filtered& p) {
  if (!generic && knows<Known<2, 12, 2, 12>>(p)) return filtered_all<T, Known<2, 12, 2, 12>>(p);
  if (!generic && knows<Known<4, 24, 2, 12>>(p)) return filtered_all<T, Known<4, 24, 2, 12>>(p);
  if (!generic && knows<Known<2, 12, 4, 24>>(p)) return filtered_all<T, Known<2, 12, 4, 24>>(p);
  return filtered_all<T, Unknown>(p);
}

template <typename T>
int bias_act(const BiasAct& p) {
  if (p.act >= kTanh)
    bias_act_all<T, int64_t, true>(p);
  else
    wide_index ? bias_act_all<T, int64_t, false>(p) : bias_act_all<T, int32_t, false>(p);
  return 0;
}

template <typename T>
int upfirdn2d(const Upfirdn& p) {
  wide_index ? upfirdn2d_all<T, int64_t>(p) : upfirdn2d_all<T, int32_t>(p);
  return 0;
}

}  // namespace

EXPORTED int stylegan_bias_act(const BiasAct* p, void*) { return p->type == 1 ? bias_act<double>(*p) : bias_act<float>(*p); }
EXPORTED int stylegan_upfirdn2d(const Upfirdn* p, void*) { return p->type == 1 ? upfirdn2d<double>(*p) : upfirdn2d<float>(*p); }
EXPORTED int stylegan_filtered_lrelu(const Filtered* p, void*) { return p->type == 1 ? filtered<double>(*p) : filtered<float>(*p); }
EXPORTED int stylegan_filtered_lrelu_fits(const Filtered* p) {
  return (p->type == 1 ? best_tiling<double>(*p) : best_tiling<float>(*p)).shared != 0;
}
EXPORTED const char* stylegan_error(int) { return "emulated"; }
EXPORTED int64_t stylegan_size_of(int64_t which) { return which == 0 ? sizeof(BiasAct) : which == 1 ? sizeof(Upfirdn) : sizeof(Filtered); }

EXPORTED void emulate(int wide, int no_known_sizes, int reversed) { wide_index = wide, generic = no_known_sizes, backwards = reversed; }
EXPORTED int overrun() { return overruns; }
