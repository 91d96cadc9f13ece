// Maps the libraries of its arguments at one address, in turn, for ever: each calls back once, and the callback makes the system call getppid. Every
// sample at that call has the same frames; with the rows of the library that was there before, it would not. With "-t" as first argument a second
// thread maps and unmaps other memory meanwhile.
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BASE ((char*)0x510000000000)
#define SIZE 0x100000

__attribute__((noinline)) static int callback(void) {
  int answer = (int)syscall(SYS_getppid);
  __asm__ volatile("" ::: "memory");
  return answer;
}

// Each PT_LOAD at its place, in the order of their addresses.
static int map(int file, Elf64_Ehdr* header, Elf64_Phdr* segments) {
  for (int i = 0; i < header->e_phnum; i++) {
    Elf64_Phdr* segment = &segments[i];
    if (segment->p_type != PT_LOAD) continue;
    unsigned long skew = segment->p_vaddr & 4095;
    int protection = PROT_READ | (segment->p_flags & PF_X ? PROT_EXEC : 0);
    if (mmap(BASE + segment->p_vaddr - skew, segment->p_memsz + skew, protection, MAP_PRIVATE | MAP_FIXED, file, segment->p_offset - skew) == MAP_FAILED)
      return 1;
  }
  return 0;
}

static int once(const char* path) {
  Elf64_Ehdr header;
  Elf64_Phdr segments[16];
  int file = open(path, O_RDONLY);
  if (file < 0 || pread(file, &header, sizeof header, 0) != sizeof header || header.e_phnum > 16) return 1;
  if (pread(file, segments, sizeof(Elf64_Phdr) * header.e_phnum, header.e_phoff) < 0 || map(file, &header, segments)) return 1;
  close(file);
  ((int (*)(int (*)(void)))(BASE + header.e_entry))(callback);
  return munmap(BASE, SIZE);
}

static void* disturb(void* unused) {
  for (;;) munmap(mmap(0, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 1 << 20);
  return unused;
}

int main(int argc, char** argv) {
  int first = 1;
  pthread_t thread;
  if (argc > 1 && !strcmp(argv[1], "-t") && first++ && pthread_create(&thread, NULL, disturb, NULL)) return 1;
  if (argc <= first) return 1;
  puts("ready");
  fflush(stdout);
  for (int i = first;; i = i + 1 < argc ? i + 1 : first)
    if (once(argv[i])) return 1;
}
