/* Threads that work, wait, are cancelled and leave early. */
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

#define KEEP __attribute__((noinline))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static sem_t started;
static volatile int turns;
static __thread int own;

KEEP int work(int n) { return n ? work(n - 1) + own : turns; }
static void cleaned(void *argument) { own += work(*(int *)argument); }

static void *worker(void *argument)
{
    int number = *(int *)argument;
    own = work(number);
    pthread_cleanup_push(cleaned, argument);
    pthread_mutex_lock(&lock);
    while (turns % 2 != number % 2)
        pthread_cond_wait(&changed, &lock);
    turns++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    pthread_cleanup_pop(1);
    if (number == 2)
        pthread_exit(NULL);
    return malloc(100);
}

static void *waits(void *argument)
{
    pthread_cleanup_push(cleaned, argument);
    sem_post(&started);
    for (;;) {
        pthread_testcancel();
        own += work(1);
        sched_yield();
    }
    pthread_cleanup_pop(0);
    return NULL;
}

int main(void)
{
    pthread_t threads[3];
    int numbers[] = {0, 1, 2, 3};
    sem_init(&started, 0, 0);
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, worker, &numbers[i]);
    for (int i = 0; i < 3; i++) {
        void *result;
        pthread_join(threads[i], &result);
        free(result);
        pthread_mutex_lock(&lock);
        turns += 2;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    pthread_create(&threads[0], NULL, waits, &numbers[3]);
    sem_wait(&started);
    pthread_cancel(threads[0]);
    pthread_join(threads[0], NULL);
    puts("done");
    return 0;
}
