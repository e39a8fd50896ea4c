// For tests: shifts the clocks of a process by the seconds in a file, while it runs. Loaded with LD_PRELOAD.
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// The monotonic, the boot-time and the wall clock.
static volatile int64_t *shifts;

__attribute__((constructor)) static void map_shifts(void) {
  const char *path = getenv("CLOCK_SHIFTS");
  int file = path ? open(path, O_RDONLY) : -1;
  if (file < 0) return;
  void *mapped = mmap(NULL, 3 * sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  if (mapped != MAP_FAILED) shifts = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  int result = (int)syscall(SYS_clock_gettime, clock, time);
  if (result != 0 || !shifts) return result;
  if (clock == CLOCK_MONOTONIC) time->tv_sec += shifts[0];
  if (clock == CLOCK_BOOTTIME) time->tv_sec += shifts[1];
  if (clock == CLOCK_REALTIME) time->tv_sec += shifts[2];
  return 0;
}
