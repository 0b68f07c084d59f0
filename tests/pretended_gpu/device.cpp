// SPDX-License-Identifier: Apache-2.0
// What torch asks of a CUDA device that has one stream and is never busy, for a torch that was built without CUDA. Loaded ahead of torch
// (LD_PRELOAD), so that it is registered before torch looks. The tensors of that device are of pretend.py.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

const c10::Device THE_DEVICE(c10::DeviceType::CUDA, 0);
const c10::Stream THE_STREAM(c10::Stream::DEFAULT, THE_DEVICE);

struct Guard final : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> {
  c10::Device getDevice() const override { return THE_DEVICE; }
  c10::Device exchangeDevice(c10::Device) const override { return THE_DEVICE; }
  c10::Stream getStream(c10::Device) const noexcept override { return THE_STREAM; }
  c10::Stream getDefaultStream(c10::Device) const override { return THE_STREAM; }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return THE_STREAM; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
};

}  // namespace

C10_REGISTER_GUARD_IMPL(CUDA, Guard);

namespace at {

// Registered under this very name, torch takes it for its own.
struct CUDAHooks : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
};

REGISTER_CUDA_HOOKS(CUDAHooks)

}  // namespace at
