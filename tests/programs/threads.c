// Starts N threads (first argument), each blocked in pause() below two calls; says "ready" when all are there.
// With "more" as second argument it goes on starting short threads for ever; with "leave" its first thread ends by pthread_exit.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_barrier_t all_there;

__attribute__((noinline)) static void wait_here(void) {
  pthread_barrier_wait(&all_there);
  for (;;) pause();
}

__attribute__((noinline)) static void* worker(void* argument) {
  wait_here();
  return argument;
}

static void* brief(void* argument) { return argument; }

static pthread_attr_t small_stack(void) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 64 * 1024);
  return attributes;
}

int main(int argc, char** argv) {
  int count = argc > 1 ? atoi(argv[1]) : 3;
  const char* then = argc > 2 ? argv[2] : "";
  pthread_attr_t attributes = small_stack();
  pthread_barrier_init(&all_there, NULL, count + 1);
  for (int i = 0; i < count; i++) {
    pthread_t thread;
    if (pthread_create(&thread, &attributes, worker, NULL)) return 1;
  }
  pthread_barrier_wait(&all_there);
  puts("ready");
  fflush(stdout);
  if (!strcmp(then, "leave")) pthread_exit(NULL);
  while (!strcmp(then, "more")) {
    pthread_t thread;
    if (!pthread_create(&thread, &attributes, brief, NULL)) pthread_join(thread, NULL);
  }
  for (;;) pause();
}
