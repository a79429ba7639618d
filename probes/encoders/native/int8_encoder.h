/* The int8 forward pass of a BERT encoder as `probes/encoders/native_runtime.py` hands it over: shapes, and who owns what.
 *
 * All widths are multiples of 32. All arrays belong to the caller and outlive the call. Nothing here allocates, blocks
 * or keeps state but for `idle_core.h`, so that any number of threads may encode with one model. Arithmetic is that of
 * the graph of `probes/encoders/onnx_graph.py`.
 */
#ifndef ELLE_INT8_ENCODER_H
#define ELLE_INT8_ENCODER_H

#include <stdint.h>

/* x (tokens, k) in int8 times w (k, n), one scale per column. `w` is packed: panels of PANEL columns, in each one four
 * rows side by side per column (see `packed` in native_runtime.py). No sum of eight products that AVX2 takes in 16 bits
 * leaves them (see `quantise` in onnx_graph.py). */
typedef struct {
    const int8_t *w;
    const float *scale;  /* (n,) */
    const int32_t *sums; /* (n,) of each column of w */
    const float *bias;   /* (n,) */
    int32_t k, n;
} Product;

/* Layer normalisation, (hidden,) each. */
typedef struct {
    const float *gamma, *beta;
} Norm;

typedef struct {
    Product query_key_value, mixed, wide, narrow;
    Norm middle, out;
} Layer;

typedef struct {
    int32_t hidden, heads, inner, halves; /* half layers: attention, feed-forward network, attention, ... */
    int32_t vocabulary, longest;          /* rows of `words` and `positions` */
    float epsilon;
    const uint16_t *words;  /* (vocabulary, hidden), float16 */
    const float *positions; /* (longest, hidden), segment 0 added */
    Norm embedded;
    const Layer *layer;
} Model;

/* What is pooled: kind 0 mean, 1 maximum, 2 first token, of what so many half layers give, 0 the embeddings. */
typedef struct {
    int32_t kind, halves;
} Part;

/* One prompt, and how long the arrays are that the caller hands over with it. */
typedef struct {
    const int32_t *ids; /* (tokens,) */
    const Part *parts;  /* (n_parts,) */
    int32_t tokens, n_parts;
    int64_t scratch_bytes, n_features;
} Call;

#endif
