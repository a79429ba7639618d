/* Lets a core that nobody else wants take a part of a lone forward pass, which never waits for it.
 *
 * A forward pass goes stage by stage, each of which is a row of items: panels of a product, heads of an attention. The
 * pass takes them from the first on, a helper thread from the last down, until they meet. The helper is of the class
 * SCHED_IDLE: it runs where a core would idle, and stops for whatever else comes. It writes to memory of its own, from
 * which the pass copies what is done; an item that the helper does not finish in the time of an item the pass computes
 * itself. So neighbours cost a pass what it would have had to compute anyway, and whoever computes an item, it has the
 * same bits.
 *
 * Every stage has a generation, and every item is taken before the pass goes on to the next. So a helper that lost its
 * core and comes back to a stage that is over finds nothing to take. What it was at it may finish, on inputs that are
 * other stages' by now: they are not freed before it ends, and nobody asks for an item of that generation any more.
 */
#ifndef ELLE_IDLE_CORE_H
#define ELLE_IDLE_CORE_H

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "int8_encoder.h"

/* Item `i` fills columns i * columns to (i + 1) * columns of `rows` rows that stand `width` apart. The rest is what
 * `item` reads. */
typedef struct Stage Stage;
struct Stage {
    void (*item)(const Stage *stage, int32_t item, float *out, float *scratch);
    int32_t n_items, columns, rows, width;
    const Product *product;
    const float *merged, *size;
    const uint8_t *quantised;
    float scale;
    int32_t zero, gelu;
};

typedef struct Team Team;

#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <unistd.h>
#include <x86intrin.h>

/* States of an item, added to its generation, which is a multiple of 4. */
enum { OPEN, TAKEN, DONE };

/* Tests make it a pause, as of a helper whose core somebody else wants. */
#ifndef LOSE_THE_CORE
#define LOSE_THE_CORE
#endif

struct Team {
    _Atomic uint64_t generation;
    _Atomic int working; /* a pass is going on that may be helped */
    _Atomic int asleep, ended, owned;
    Stage stage;
    _Atomic uint64_t *items;
    float *out, *scratch; /* the helper's */
    void *of_pass;        /* scratch of the pass that is helped */
    sem_t wake;
    pthread_t helper;
    pid_t process;
    int shunned;     /* the core that the helper may not use; -1 for none */
    uint64_t helped; /* items that passes took from the helper */
};

static int take(Team *team, int32_t item, uint64_t generation) {
    uint64_t open = generation + OPEN;
    return atomic_compare_exchange_strong(team->items + item, &open, generation + TAKEN);
}

/* The helper's part of one stage, if there is one that it has not been at. */
static void help(Team *team, uint64_t *seen) {
    uint64_t generation = atomic_load_explicit(&team->generation, memory_order_acquire);
    if (generation == *seen) {
        _mm_pause();
        return;
    }
    *seen = generation;
    /* While the next stage is being written this may be half of each, and then nothing of `generation` is left to take. */
    Stage stage = team->stage;
    for (int32_t i = stage.n_items - 1; i >= 0 && take(team, i, generation); i--) {
        LOSE_THE_CORE
        stage.item(&stage, i, team->out, team->scratch);
        uint64_t taken = generation + TAKEN;
        if (!atomic_compare_exchange_strong(team->items + i, &taken, generation + DONE)) return;
    }
}

static void *live(void *argument) {
    Team *team = argument;
    uint64_t seen = 0;
    const struct sched_param none = {0};
    /* A thread of any other class would be given time that somebody else needs. Without it no pass gets the team. */
    if (sched_setscheduler(0, SCHED_IDLE, &none)) return NULL;
    pthread_setname_np(pthread_self(), "elle-idle-core");
    atomic_store(&team->owned, 0);
    while (!atomic_load(&team->ended)) {
        atomic_store(&team->asleep, 1);
        /* A pass that began before that has not woken us. */
        if (!atomic_load(&team->working) || !atomic_exchange(&team->asleep, 0))
            while (sem_wait(&team->wake)) {}
        while (atomic_load(&team->working)) help(team, &seen);
    }
    return NULL;
}

static void *aligned(int64_t n_bytes) { return aligned_alloc(64, (n_bytes + 63) / 64 * 64); }

static void release(Team *team) {
    free(team->items);
    free(team->out);
    free(team->scratch);
    free(team->of_pass);
    free(team);
}

static int begin_life(Team *team) {
    sigset_t all, before;
    sigfillset(&all);
    /* Signals are for the threads of the program. */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&team->helper, NULL, live, team);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !failed;
}

/* Starts a helper for passes of up to `tokens` of this model, one at a time; NULL if there can be none. `scratch` as
 * `elle_scratch_bytes`. The model must outlive it. */
static Team *team_new(const Model *m, int32_t tokens, int64_t scratch) {
    Team *team = calloc(1, sizeof *team);
    if (!team) return NULL;
    int32_t widest = 3 * m->hidden > m->inner ? 3 * m->hidden : m->inner;
    team->items = aligned(widest * sizeof *team->items);
    team->out = aligned((int64_t)tokens * widest * sizeof *team->out);
    team->scratch = aligned(scratch);
    team->of_pass = aligned(scratch);
    team->process = getpid();
    team->shunned = -1;
    atomic_store(&team->owned, 1);
    if (team->items && team->out && team->scratch && team->of_pass && sem_init(&team->wake, 0, 0) == 0) {
        memset(team->items, 0, widest * sizeof *team->items);
        if (begin_life(team)) return team;
        sem_destroy(&team->wake);
    }
    release(team);
    return NULL;
}

/* Ends the helper, after the item that it is at, which may take seconds where nothing idles. No pass may be going on. */
static void team_end(Team *team) {
    /* A process that was forked has the memory, and not the thread. */
    if (team->process != getpid()) return;
    atomic_store(&team->ended, 1);
    sem_post(&team->wake);
    pthread_join(team->helper, NULL);
    sem_destroy(&team->wake);
    release(team);
}

/* Keeps the helper off the core that the pass is on; whether it is. Woken there, as the scheduler likes to when no other
 * one idles at that moment, it would wait behind the pass until the load is balanced, which is longer than the pass takes.
 * The other cores are those of the program's main thread, as they are now. */
static int shun(Team *team) {
    int core = sched_getcpu();
    if (core >= 0 && core == team->shunned) return 1;
    cpu_set_t others;
    if (core < 0 || sched_getaffinity(team->process, sizeof others, &others)) return 0;
    CPU_CLR(core, &others);
    if (pthread_setaffinity_np(team->helper, sizeof others, &others)) return 0;
    team->shunned = core;
    return 1;
}

/* Whether a pass has the helper now. Its scratch is the team's then, and it must give the helper back with
 * `team_dismiss`. */
static int team_call(Team *team, void **scratch) {
    int nobody = 0;
    if (team->process != getpid() || !atomic_compare_exchange_strong(&team->owned, &nobody, 1)) return 0;
    if (!shun(team)) {
        atomic_store(&team->owned, 0);
        return 0;
    }
    atomic_store(&team->working, 1);
    if (atomic_exchange(&team->asleep, 0)) sem_post(&team->wake);
    *scratch = team->of_pass;
    return 1;
}

static int64_t team_helped(const Team *team) { return (int64_t)team->helped; }

static void team_dismiss(Team *team) {
    atomic_store(&team->working, 0);
    atomic_store(&team->owned, 0);
}

/* Makes a stage the one that may be helped, and gives its generation. The generation is stored last, with release, so
 * that a helper that sees it also sees the stage and its open items. */
static uint64_t publish(Team *team, const Stage *stage) {
    uint64_t generation = atomic_load_explicit(&team->generation, memory_order_relaxed) + 4;
    team->stage = *stage;
    for (int32_t i = 0; i < stage->n_items; i++)
        atomic_store_explicit(team->items + i, generation + OPEN, memory_order_relaxed);
    atomic_store_explicit(&team->generation, generation, memory_order_release);
    return generation;
}

/* Whether the helper, which took an item, has it done; it is waited for as many cycles as an item takes. */
static int done(Team *team, int32_t item, uint64_t generation, uint64_t cycles) {
    uint64_t begun = __rdtsc();
    do {
        if (atomic_load_explicit(team->items + item, memory_order_acquire) == generation + DONE) return 1;
        _mm_pause();
    } while (__rdtsc() - begun < cycles);
    return 0;
}

static void copy_item(const Stage *s, int32_t item, const float *from, float *to) {
    int64_t first = (int64_t)item * s->columns;
    for (int32_t r = 0; r < s->rows; r++, first += s->width)
        memcpy(to + first, from + first, s->columns * sizeof *to);
}

/* All items of a stage, with the help of `team` if it is not NULL. */
static void share(Team *team, const Stage *stage, float *out, float *scratch) {
    if (!team) {
        for (int32_t i = 0; i < stage->n_items; i++) stage->item(stage, i, out, scratch);
        return;
    }
    uint64_t generation = publish(team, stage), least = UINT64_MAX, begun = __rdtsc();
    int32_t met = 0;
    for (; met < stage->n_items && take(team, met, generation); met++) {
        stage->item(stage, met, out, scratch);
        /* The least, because others may have lost the core, or changed it for one with another clock. */
        uint64_t now = __rdtsc();
        least = now - begun < least ? now - begun : least;
        begun = now;
    }
    /* If the pass computed no item itself, it does not know how long one takes, and waits for none. */
    for (int32_t i = stage->n_items - 1; i >= met; i--)
        if (done(team, i, generation, met ? least : 0)) {
            copy_item(stage, i, team->out, out);
            team->helped++;
        } else stage->item(stage, i, out, scratch);
}

#else /* no class of threads that only take what is left over: nobody helps */

static Team *team_new(const Model *m, int32_t tokens, int64_t scratch) { return NULL; }
static void team_end(Team *team) {}
static int team_call(Team *team, void **scratch) { return 0; }
static void team_dismiss(Team *team) {}
static int64_t team_helped(const Team *team) { return 0; }

static void share(Team *team, const Stage *stage, float *out, float *scratch) {
    for (int32_t i = 0; i < stage->n_items; i++) stage->item(stage, i, out, scratch);
}

#endif
#endif
