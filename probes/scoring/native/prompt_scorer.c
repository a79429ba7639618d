/* Score one prompt: the linear losses, the leverage and the nearest kinds, from the features of the prompt.
 *
 * probes/scoring/prompt_scorer.py calls it and says what everything means. It is one function because a request waits
 * for it: between two requests the matrices leave the caches of the processor, and so does the code of every step in
 * Python.
 *
 * Sums are made in a fixed order, LANES partial sums at a time and without fused products (-ffp-contract=off), so that
 * the results have the same bits on every processor, whatever the compiler makes of the loops.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#define INLINE inline __attribute__((always_inline))

enum { LANES = 32, MAX_FEATURES = 8192, MAX_KINDS = 256 };

/* A second copy for processors with AVX2, which does the same steps eight numbers at a time. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__)
#define CLONED __attribute__((target_clones("avx2", "default")))
#else
#define CLONED
#endif

/* What `elle_score_prompt` reads. Matrices are stored row by row. Without kinds `n_kinds` is 0. */
struct elle_scorer {
    int32_t n_features, n_models, n_factors, n_directions, n_kinds, n_nearest;
    const float *coef, *intercept;            /* (n_models, n_features), (n_models) */
    const float *mean, *inverse_scale;        /* (n_features) each */
    const float *factor;                      /* (n_factors, n_features) */
    const float *centre, *projection;         /* (n_features), (n_directions, n_features) */
    const double *twice_centres;              /* (n_kinds, n_directions) */
    const double *norms, *broad;              /* (n_kinds), (n_directions) */
    double tail, floor, temperature;
};

/* Vectors of 32 bytes, which GCC and Clang make of whatever the processor has. With the -fwrapv that Python hands to
 * compilers, GCC would keep an array of LANES sums in memory, which takes several times as long. Other compilers
 * build nothing, and numpy computes the scores. */
#if !defined(__GNUC__)
#error "prompt_scorer.c needs the vectors of GCC or Clang"
#endif

/* A function that returns the product of two vectors of n numbers of one type. */
#define PRODUCT(NAME, TYPE)                                                                                         \
    typedef TYPE NAME##_lanes __attribute__((vector_size(32)));                                                     \
    typedef TYPE NAME##_read __attribute__((vector_size(32), aligned(sizeof(TYPE)), may_alias));                    \
    enum { NAME##_width = 32 / sizeof(TYPE), NAME##_vectors = LANES / NAME##_width };                               \
                                                                                                                    \
    static INLINE void NAME##_add(NAME##_lanes *sums, const TYPE *a, const TYPE *b) {                               \
        for (int v = 0; v < NAME##_vectors; v++)                                                                    \
            sums[v] += ((const NAME##_read *)a)[v] * ((const NAME##_read *)b)[v];                                   \
    }                                                                                                               \
                                                                                                                    \
    static INLINE TYPE NAME(const TYPE *a, const TYPE *b, int32_t n) {                                              \
        NAME##_lanes sums[NAME##_vectors] = {0};                                                                    \
        TYPE last[2][LANES] = {{0}}, lanes[NAME##_width];                                                           \
        int32_t whole = n - n % LANES;                                                                              \
        for (int32_t i = 0; i < whole; i += LANES) NAME##_add(sums, a + i, b + i);                                  \
        if (whole < n) {                                                                                            \
            memcpy(last[0], a + whole, (n - whole) * sizeof(TYPE));                                                 \
            memcpy(last[1], b + whole, (n - whole) * sizeof(TYPE));                                                 \
            NAME##_add(sums, last[0], last[1]);                                                                     \
        }                                                                                                           \
        for (int width = NAME##_vectors / 2; width; width /= 2)                                                     \
            for (int v = 0; v < width; v++) sums[v] += sums[v + width];                                             \
        memcpy(lanes, sums, sizeof lanes);                                                                          \
        for (int width = NAME##_width / 2; width; width /= 2)                                                       \
            for (int lane = 0; lane < width; lane++) lanes[lane] += lanes[lane + width];                            \
        return lanes[0];                                                                                            \
    }

/* Return the product of two vectors of n numbers. */
PRODUCT(product, float)
PRODUCT(wide_product, double)

/* Return the leverage of features x: floor + tail * |z|^2 - |factor z|^2, z = (x - mean) * inverse_scale. */
static INLINE double leverage_of(const struct elle_scorer *s, const float *x, float *z) {
    double inside = 0.0;
    for (int32_t i = 0; i < s->n_features; i++) z[i] = (x[i] - s->mean[i]) * s->inverse_scale[i];
    for (int32_t row = 0; row < s->n_factors; row++) {
        double one = product(s->factor + (int64_t)row * s->n_features, z, s->n_features);
        inside += one * one;
    }
    double spread = s->tail * (double)product(z, z, s->n_features) - inside;
    /* The difference of two nearly equal numbers may come out slightly below 0. NaN stays NaN. */
    return s->floor + (spread < 0.0 ? 0.0 : spread);
}

/* Write the least distance to a kind, the distance to the broad Gaussian, the sum of the weights of all kinds, and then
 * number and weight of each of the nearest kinds. */
static INLINE void find_kinds(const struct elle_scorer *s, const float *x, float *centred, double *out) {
    double z[MAX_KINDS], distance[MAX_KINDS] = {0}, squares = 0.0, broad = 0.0, total = 0.0;
    for (int32_t i = 0; i < s->n_features; i++) centred[i] = x[i] - s->centre[i];
    for (int32_t row = 0; row < s->n_directions; row++) {
        z[row] = product(s->projection + (int64_t)row * s->n_features, centred, s->n_features);
        squares += z[row] * z[row];
        broad += z[row] * z[row] * s->broad[row];
    }
    int32_t least = 0;
    for (int32_t kind = 0; kind < s->n_kinds; kind++) {
        const double *centre = s->twice_centres + (int64_t)kind * s->n_directions;
        distance[kind] = s->norms[kind] - wide_product(centre, z, s->n_directions) + squares;
        if (distance[kind] < distance[least]) least = kind;
    }
    out[0] = distance[least];
    out[1] = broad;
    double *nearest = out + 3;
    for (int32_t place = 0; place < s->n_nearest; place++) nearest[2 * place] = nearest[2 * place + 1] = -1.0;
    for (int32_t kind = 0; kind < s->n_kinds; kind++) {
        double weight = exp((out[0] - distance[kind]) / (2.0 * s->temperature));
        total += weight;
        /* Of two kinds equally near the first one comes first. */
        int32_t place = s->n_nearest;
        while (place > 0 && (nearest[2 * place - 2] < 0.0 || weight > nearest[2 * place - 1])) place--;
        for (int32_t later = s->n_nearest - 1; later > place; later--) {
            nearest[2 * later] = nearest[2 * later - 2];
            nearest[2 * later + 1] = nearest[2 * later - 1];
        }
        if (place < s->n_nearest) {
            nearest[2 * place] = kind;
            nearest[2 * place + 1] = weight;
        }
    }
    out[2] = total;
}

/* Score the features x (n_features). `out` gets n_models losses, the leverage and, with kinds, what `find_kinds`
 * writes. Return 0, or -1 for numbers of features, kinds or directions that are too large. */
EXPORT CLONED int elle_score_prompt(const struct elle_scorer *s, const float *x, double *out) {
    float scratch[MAX_FEATURES];
    if (s->n_features > MAX_FEATURES || s->n_kinds > MAX_KINDS || s->n_directions > MAX_KINDS) return -1;
    for (int32_t model = 0; model < s->n_models; model++)
        out[model] = product(s->coef + (int64_t)model * s->n_features, x, s->n_features) + s->intercept[model];
    out[s->n_models] = (float)leverage_of(s, x, scratch);
    if (s->n_kinds) find_kinds(s, x, scratch, out + s->n_models + 1);
    return 0;
}
