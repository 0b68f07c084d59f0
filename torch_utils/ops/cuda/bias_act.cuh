// SPDX-License-Identifier: Apache-2.0
// y = clamp(gain * act(x + b)), and its first and second derivatives, a packet of elements at a time.

#pragma once
#include <cmath>

#include "common.cuh"

namespace {

enum Act { kLinear = 1, kRelu, kLrelu, kTanh, kSigmoid, kElu, kSelu, kSoftplus, kSwish };

template <typename A>
BODY A logistic(A u) {
  return A(1) / (A(1) + exp(-u));
}

template <typename A>
struct Selu {
  static constexpr A scale = A(1.0507009873554804934193349852946), alpha = A(1.6732632423543772848170429916717);
};

// An activation of straight lines at u, and its slope.
template <typename A>
BODY A straight_value(int64_t act, A u, A alpha) {
  return act == kLinear || u > A(0) ? u : act == kRelu ? (u <= A(0) ? A(0) : u) : u * alpha;
}
template <typename A>
BODY A straight_slope(int64_t act, A u, A alpha) {
  return act == kLinear || u > A(0) ? A(1) : act == kRelu ? A(0) : alpha;
}

// A curved activation at u.
template <typename A>
BODY A value_at(int64_t act, A u) {
  switch (act) {
    case kTanh: return tanh(u);
    case kSigmoid: return logistic(u);
    case kElu: return u > A(0) ? u : expm1(u);
    case kSelu: return Selu<A>::scale * (u > A(0) ? u : Selu<A>::alpha * expm1(u));
    case kSoftplus: return larger(u, A(0)) + log1p(exp(-fabs(u)));
    default: return u * logistic(u);  // kSwish
  }
}

// Its slope at u.
template <typename A>
BODY A slope_at(int64_t act, A u) {
  switch (act) {
    case kTanh: { const A t = tanh(u); return A(1) - t * t; }
    case kSigmoid: { const A s = logistic(u); return s * (A(1) - s); }
    case kElu: return u > A(0) ? A(1) : exp(u);
    case kSelu: return Selu<A>::scale * (u > A(0) ? A(1) : Selu<A>::alpha * exp(u));
    case kSoftplus: return logistic(u);
    default: { const A s = logistic(u); return s + u * s * (A(1) - s); }  // kSwish
  }
}

// The slope of its slope at u.
template <typename A>
BODY A bend_at(int64_t act, A u) {
  switch (act) {
    case kTanh: { const A t = tanh(u); return A(-2) * t * (A(1) - t * t); }
    case kSigmoid: { const A s = logistic(u); return s * (A(1) - s) * (A(1) - A(2) * s); }
    case kElu: return u > A(0) ? A(0) : exp(u);
    case kSelu: return u > A(0) ? A(0) : Selu<A>::scale * Selu<A>::alpha * exp(u);
    case kSoftplus: { const A s = logistic(u); return s * (A(1) - s); }
    default: { const A s = logistic(u); return s * (A(1) - s) * (A(2) + u * (A(1) - A(2) * s)); }  // kSwish
  }
}

// One element. r is the result or, with its bias, what the activation was taken of: for a gain above 0 and an alpha of at least 0, both have one sign.
// BENDS: the activation is curved, so that its parts are large; else its code is a few instructions.
template <typename A, bool BENDS>
BODY A bias_act_element(const BiasAct& p, A x, A b, A r, A h) {
  const A alpha = static_cast<A>(p.alpha), gain = static_cast<A>(p.gain), clamp = static_cast<A>(p.clamp);
  const int64_t act = p.act;
  if (p.mode == 0) return limited(gain * (BENDS ? value_at(act, x + b) : straight_value(act, x + b, alpha)), clamp);
  const A u = p.from_y ? r : r + b;
  const A y = p.from_y ? r : gain * (BENDS ? value_at(act, u) : straight_value(act, u, alpha));
  if (fabs(y) >= clamp) return A(0);
  if (p.mode == 1) return x * gain * (BENDS ? slope_at(act, u) : straight_slope(act, u, alpha));
  return BENDS ? x * h * gain * bend_at(act, u) : A(0);
}

// Elements from `first` on, at most N. N > 1: all of them are there, and every pointer is a multiple of their size together.
template <typename T, typename I, int N, bool BENDS>
BODY void bias_act_packet(const BiasAct& p, I first) {
  using A = typename Wide<T>::type;
  using P = Pack<T, N>;
  const I place = first / N;
  const P x = static_cast<const P*>(p.x)[place];
  P r = x, h = x, y;
  if (p.r != nullptr) r = static_cast<const P*>(p.r)[place];
  if (p.h != nullptr) h = static_cast<const P*>(p.h)[place];
  I channel = 0, rest = 0;
  if (p.b != nullptr) {
    const I row = first / static_cast<I>(p.stride);
    rest = first - row * static_cast<I>(p.stride);
    channel = row % static_cast<I>(p.channels);
  }
  UNROLL
  for (int i = 0; i < N; ++i) {
    const A b = p.b != nullptr ? widen(static_cast<const T*>(p.b)[channel]) : A(0);
    y.value[i] = narrow<T>(bias_act_element<A, BENDS>(p, widen(x.value[i]), b, widen(r.value[i]), widen(h.value[i])));
    if (++rest == static_cast<I>(p.stride)) {
      rest = 0;
      if (++channel == static_cast<I>(p.channels)) channel = 0;
    }
  }
  static_cast<P*>(p.y)[place] = y;
}

// Elements in a packet: 16 bytes of them; one where they do not lie so, or where the time goes into arithmetic.
template <typename T>
BODY int packet_of(const BiasAct& p) {
  constexpr int N = 16 / sizeof(T);
  const std::uintptr_t all = reinterpret_cast<std::uintptr_t>(p.x) | reinterpret_cast<std::uintptr_t>(p.r) | reinterpret_cast<std::uintptr_t>(p.h) |
                             reinterpret_cast<std::uintptr_t>(p.y);
  return all % 16 == 0 && p.act < kTanh ? N : 1;
}

// Work item `item` of ceil(n / packet): a packet, or what is left at the end one by one.
template <typename T, typename I, bool BENDS>
BODY void bias_act_item(const BiasAct& p, int packet, I item) {
  constexpr int N = BENDS ? 1 : 16 / sizeof(T);
  const I first = item * packet, n = static_cast<I>(p.n);
  if (packet == N && first + N <= n) {
    bias_act_packet<T, I, N, BENDS>(p, first);
    return;
  }
  for (I i = first; i < first + packet && i < n; ++i) bias_act_packet<T, I, 1, BENDS>(p, i);
}

}  // namespace
