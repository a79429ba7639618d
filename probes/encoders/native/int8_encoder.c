/* The int8 forward pass for the processors it is written for, chosen when it runs. A plain C library: `ctypes` calls it,
 * which lets go of Python's lock.
 *
 *     vnni   AVX-512 VNNI: four products of 8 bits and their sum in one instruction (Ice Lake, Zen 4 and later)
 *     avx2   AVX2: two products of 8 bits and their sum, in 16
 *
 * Both give the same bits; `-ffp-contract=off` is part of that. Compiled with EMULATE_VNNI, the first is plain C on any
 * AVX2 machine: slow, for tests.
 */
#define _GNU_SOURCE /* for SCHED_IDLE */

#include "int8_encoder.h"

#include "idle_core.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

/* As in probes/encoders/weights.py: offsets within arrays of these sizes fit 32 bits. */
enum { MOST_HIDDEN = 8192, MOST_INNER = 32768, MOST_HALVES = 200, MOST_VOCABULARY = 1 << 21, MOST_LONGEST = 32768 };

static int within(int64_t value, int64_t low, int64_t high) { return value >= low && value <= high; }

static int product_fits(const Product *p, int32_t k, int32_t n) {
    return p->w && p->scale && p->sums && p->bias && p->k == k && p->n == n;
}

static int norm_fits(const Norm *norm) { return norm->gamma && norm->beta; }

static int layer_fits(const Model *m, const Layer *layer, int both_halves) {
    int32_t h = m->hidden;
    if (!product_fits(&layer->query_key_value, h, 3 * h) || !product_fits(&layer->mixed, h, h)) return 0;
    if (!norm_fits(&layer->middle)) return 0;
    if (!both_halves) return 1;
    return product_fits(&layer->wide, h, m->inner) && product_fits(&layer->narrow, m->inner, h) &&
           norm_fits(&layer->out);
}

/* Whether the numbers of a model are ones this is written for, and those of its parts agree with them. */
static int model_fits(const Model *m) {
    if (!within(m->hidden, 32, MOST_HIDDEN) || m->hidden % 32 || !within(m->heads, 1, m->hidden)) return 0;
    if (m->hidden % m->heads || m->hidden / m->heads % 32 || !within(m->halves, 0, MOST_HALVES)) return 0;
    if (!within(m->inner, m->halves > 1 ? 32 : 0, MOST_INNER) || m->inner % 32) return 0;
    if (!within(m->vocabulary, 1, MOST_VOCABULARY) || !within(m->longest, 1, MOST_LONGEST)) return 0;
    if (!(m->epsilon > 0) || !m->words || !m->positions || !norm_fits(&m->embedded)) return 0;
    for (int32_t half = 0; half < m->halves; half += 2)
        if (!m->layer || !layer_fits(m, m->layer + half / 2, half + 1 < m->halves)) return 0;
    return 1;
}

/* What `elle_encode_...` needs for so many tokens, whichever the target: two states; queries, keys and values; the
 * inner layer; keys and four rows of scores of one head, and the size of each token, padded; the widest input, in
 * bytes. */
static int64_t scratch_bytes(const Model *m, int32_t tokens) {
    int64_t padded = (tokens + 31) / 32 * 32;
    int64_t floats = (int64_t)tokens * (5 * m->hidden + m->inner) + padded * (m->hidden / m->heads + 5);
    int64_t widest = m->inner > m->hidden ? m->inner : m->hidden;
    return 4 * floats + tokens * widest;
}

static int call_fits(const Model *m, const Call *call) {
    if (!model_fits(m) || !within(call->tokens, 1, m->longest) || call->n_parts < 1) return 0;
    if (call->scratch_bytes < scratch_bytes(m, call->tokens)) return 0;
    if (call->n_features != (int64_t)call->n_parts * m->hidden) return 0;
    for (int32_t i = 0; i < call->tokens; i++)
        if (!within(call->ids[i], 0, m->vocabulary - 1)) return 0;
    for (int32_t i = 0; i < call->n_parts; i++)
        if (!within(call->parts[i].kind, 0, 2) || !within(call->parts[i].halves, 0, m->halves)) return 0;
    return 1;
}

#define INLINE static inline __attribute__((always_inline))
#define JOIN2(a, b) a##_##b
#define JOIN(a, b) JOIN2(a, b)
#define NAME(x) JOIN(x, TARGET)

/* As in probes/encoders/onnx_graph.py: a smaller token is scaled as if its largest value were this. */
#define LEAST_SIZE 0.25f

typedef int32_t int32_unaligned __attribute__((aligned(1), may_alias));

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#define TARGET avx2
#define VECTOR 8
#define DEPTH 4
#define ROWS 4
#define TILES(X) X(1) X(2) X(3) X(4)
typedef int32_t lanes_avx2 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float reals_avx2 __attribute__((vector_size(32), aligned(4), may_alias));
/* Sixteen products a lane. Eight of them are summed in 16 bits, where `probes.encoders.onnx_graph.quantise` makes them fit:
 * widening, which costs as much as multiplying, is then done once in four times. */
INLINE void dot_avx2(lanes_avx2 sums[2], const uint8_t *x, const lanes_avx2 *w) {
    __m256i left, right;
    for (int i = 0; i < DEPTH; i++) {
        __m256i a = _mm256_set1_epi32(*(const int32_unaligned *)(x + 4 * i));
        __m256i l = _mm256_maddubs_epi16(a, (__m256i)w[2 * i]), r = _mm256_maddubs_epi16(a, (__m256i)w[2 * i + 1]);
        left = i ? _mm256_add_epi16(left, l) : l;
        right = i ? _mm256_add_epi16(right, r) : r;
    }
    const __m256i one = _mm256_set1_epi16(1);
    sums[0] += (lanes_avx2)_mm256_madd_epi16(left, one);
    sums[1] += (lanes_avx2)_mm256_madd_epi16(right, one);
}
INLINE reals_avx2 fused_avx2(reals_avx2 a, reals_avx2 b, reals_avx2 c) {
    return (reals_avx2)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
/* Packing works within halves of a register, so the halves are taken apart first, or values would change places. */
INLINE void store_avx2(uint8_t *to, lanes_avx2 value) {
    __m128i low = _mm256_castsi256_si128((__m256i)value), high = _mm256_extracti128_si256((__m256i)value, 1);
    __m128i words = _mm_packus_epi32(low, high);
    _mm_storel_epi64((__m128i *)to, _mm_packus_epi16(words, words));
}
#include "int8_body.h"
#undef TARGET
#undef VECTOR
#undef DEPTH
#undef ROWS
#undef TILES
#pragma GCC pop_options

#pragma GCC push_options
#ifdef EMULATE_VNNI
#pragma GCC target("avx2,fma,f16c")
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,prefer-vector-width=512")
#endif
#define TARGET vnni
#define VECTOR 16
#define DEPTH 1
#define ROWS 12
#define TILES(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
typedef int32_t lanes_vnni __attribute__((vector_size(64), aligned(4), may_alias));
typedef float reals_vnni __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint8_t bytes_vnni __attribute__((vector_size(16), aligned(1), may_alias));
INLINE void dot_vnni(lanes_vnni sums[2], const uint8_t *x, const lanes_vnni *w) {
#ifdef EMULATE_VNNI
    const int8_t *right = (const int8_t *)w;
    for (int i = 0; i < 32; i++)
        for (int j = 0; j < 4; j++) sums[i / 16][i % 16] += x[j] * right[4 * i + j];
#else
    __m512i a = _mm512_set1_epi32(*(const int32_unaligned *)x);
    for (int i = 0; i < 2; i++) sums[i] = (lanes_vnni)_mm512_dpbusd_epi32((__m512i)sums[i], a, (__m512i)w[i]);
#endif
}
INLINE reals_vnni fused_vnni(reals_vnni a, reals_vnni b, reals_vnni c) {
#ifdef EMULATE_VNNI
    for (int i = 0; i < 16; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#else
    return (reals_vnni)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#endif
}
INLINE void store_vnni(uint8_t *to, lanes_vnni value) {
    *(bytes_vnni *)to = __builtin_convertvector(value, bytes_vnni);
}
#include "int8_body.h"
#pragma GCC pop_options

/* Bytes of scratch for so many tokens, whichever the target; -1 for a model or a length that no pass is made with.
 * `bytes` holds how long the caller takes each structure to be. They differ if library and caller are of two versions,
 * and then every pointer in the structures would be read from the wrong place. */
int64_t elle_scratch_bytes(const Model *m, int32_t tokens, const int64_t bytes[4]) {
    const int64_t own[4] = {sizeof(Model), sizeof(Layer), sizeof(Part), sizeof(Call)};
    if (memcmp(own, bytes, sizeof own)) return -1;
    return model_fits(m) && within(tokens, 1, m->longest) ? scratch_bytes(m, tokens) : -1;
}

/* Starts a helper for lone passes of up to so many tokens; NULL if there can be none. The model must outlive it. */
Team *elle_team_new(const Model *m, int32_t tokens) {
    return model_fits(m) && within(tokens, 1, m->longest) ? team_new(m, tokens, scratch_bytes(m, tokens)) : NULL;
}

/* Ends the helper. No pass that it helps may be going on. */
void elle_team_end(Team *team) { team_end(team); }

/* The number of items that passes have taken from the helper instead of computing them. */
int64_t elle_team_helped(const Team *team) { return team_helped(team); }

/* Whether this processor, and the kernel of its operating system, has what a target needs. */
int elle_supports(const char *target) {
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (strcmp(target, "avx2") == 0) return avx2;
    if (strcmp(target, "vnni") != 0) return 0;
#ifdef EMULATE_VNNI
    return avx2;
#else
    return avx2 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
#endif
}
