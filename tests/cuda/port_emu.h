/* port_emu.h - what a stand-in for a library asks of the emulated device (port_emu.cc).
 * Always: what is given to a stream is done in its turn, when somebody waits for it, and again with a graph that holds it.
 * Owner: nccl_emu.cc. */
#ifndef TESTS_CUDA_PORT_EMU_H
#define TESTS_CUDA_PORT_EMU_H

#include <functional>

/* stream: of port_stream. fn false: the work never ends, as a kernel that waits for a rank that is gone. */
bool emu_is_recording(void *stream);
void emu_later(void *stream, std::function<bool()> fn);

#endif
