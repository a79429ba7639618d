/* The forward pass, compiled once per instruction set by int8_encoder.c, which defines NAME(x), VECTOR (floats in a
 * register), DEPTH (fours of products that `dot` takes at once), ROWS (rows of a tile), and what else differs.
 *
 * Vectors are GCC's vector extensions, so that one text serves every width. Every
 * operation is IEEE's, fused where it says so and nowhere else, and every sum has one order: all targets give the same
 * bits.
 */

#define PANEL (2 * VECTOR)

typedef float NAME(floats) __attribute__((vector_size(4 * VECTOR), aligned(4), may_alias));
typedef int32_t NAME(ints) __attribute__((vector_size(4 * VECTOR), aligned(4), may_alias));
#define floats NAME(floats)
#define ints NAME(ints)

#define AT(type, p) (*(type *)(p))
#define READ(type, p) (*(const type *)(p))
#define SAME(x) ((x) - (floats){}) /* not +: x + 0 is no copy of -0, so it would be computed */
#define PICK(mask, yes, no) ((floats)(((mask) & (ints)(yes)) | (~(mask) & (ints)(no))))

INLINE floats NAME(larger)(floats a, floats b) { return PICK(a > b, a, b); }
INLINE floats NAME(smaller)(floats a, floats b) { return PICK(a < b, a, b); }

/* Sums are taken over sixteen lanes, whatever the width of a register, so that they round alike everywhere. */
#define EACH_OF_16 for (int j = 0; j < 16 / VECTOR; j++)

INLINE float NAME(sum)(const floats *x) {
    float total = 0;
    EACH_OF_16 for (int i = 0; i < VECTOR; i++) total += x[j][i];
    return total;
}

/* exp(x), relative error about 2e-7, for x <= 88; below -87 it gives exp(-87). 2^n times a polynomial on
 * [-ln2 / 2, ln2 / 2] (Cody & Waite reduction, Taylor coefficients). */
INLINE floats NAME(exponential)(floats x) {
    x = NAME(larger)(x, SAME(-87.0f));
    const floats rounder = SAME(12582912.0f); /* adding it leaves no binary places */
    floats n = (x * 1.44269504f + rounder) - rounder;
    floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    floats p = NAME(fused)(r, SAME(1.0f / 720), SAME(1.0f / 120));
    p = NAME(fused)(p, r, SAME(1.0f / 24));
    p = NAME(fused)(p, r, SAME(1.0f / 6));
    p = NAME(fused)(p, r, SAME(0.5f));
    p = NAME(fused)(p, r, SAME(1.0f));
    p = NAME(fused)(p, r, SAME(1.0f));
    return (floats)((ints)p + (__builtin_convertvector(n, ints) << 23));
}

/* x Phi(x), absolute error of Phi below 3e-7 (Abramowitz & Stegun 7.1.26). */
INLINE floats NAME(gelu)(floats x) {
    floats z = (floats)((ints)x & 0x7fffffff) * 0.70710678f;
    floats t = 1.0f / (1.0f + 0.3275911f * z);
    floats p = NAME(fused)(t, SAME(1.061405429f), SAME(-1.453152027f));
    p = NAME(fused)(p, t, SAME(1.421413741f));
    p = NAME(fused)(p, t, SAME(-0.284496736f));
    p = NAME(fused)(p, t, SAME(0.254829592f));
    floats tail = p * t * NAME(exponential)(-z * z) * 0.5f; /* Phi(-|x|) */
    return x * PICK(x > 0.0f, 1.0f - tail, tail);
}

/* Rows of `x` in eight bits, in the two steps of the graph: each token by its own size, then all by the range of what
 * that leaves (DynamicQuantizeLinear). Gives the scale of all; `zero` is what stands for 0. */
static float NAME(quantise)(const float *x, int32_t tokens, int32_t width, float *size, uint8_t *out, int32_t *zero) {
    float low = 0, high = 0;
    for (int32_t t = 0; t < tokens; t++) {
        floats least = {}, most = {};
        for (int32_t i = 0; i < width; i += VECTOR) {
            floats v = READ(floats, x + t * width + i);
            least = NAME(smaller)(v, least);
            most = NAME(larger)(v, most);
        }
        float down = 0, up = 0;
        for (int i = 0; i < VECTOR; i++) {
            down = least[i] < down ? least[i] : down;
            up = most[i] > up ? most[i] : up;
        }
        float largest = -down > up ? -down : up;
        size[t] = largest > LEAST_SIZE ? largest : LEAST_SIZE;
        low = down / size[t] < low ? down / size[t] : low;
        high = up / size[t] > high ? up / size[t] : high;
    }
    float scale = high > low ? (high - low) / 255.0f : 1.0f;
    /* It is 0 to 255 unless weights are so large that something was not finite. */
    float nothing = __builtin_rintf(-low / scale);
    *zero = nothing >= 0 && nothing <= 255 ? (int32_t)nothing : 0;
    /* Adding 1.5 * 2^23 leaves no binary places: that rounds to the nearest integer alike on every instruction set. */
    const floats rounder = SAME(12582912.0f), least = SAME((float)-*zero), most = SAME((float)(255 - *zero));
    const float steps = 1.0f / scale;
    for (int32_t t = 0; t < tokens; t++)
        for (int32_t i = 0; i < width; i += VECTOR) {
            /* Divided, because the largest value of every token is 1 then, and lies between two integers: how that one
             * rounds must not depend on how a product does. */
            floats v = READ(floats, x + t * width + i) / size[t] * steps;
            v = NAME(smaller)(NAME(larger)((v + rounder) - rounder, least), most);
            NAME(store)(out + t * width + i, __builtin_convertvector(v, ints) + *zero);
        }
    return scale;
}

/* `rows` rows of a product times one panel; `rows` is a constant where it is called, so that sums stay in registers. */
INLINE void NAME(tile)(const int rows, const uint8_t *x, const Product *p, int32_t panel, float scale, int32_t zero,
                       const float *size, float *out) {
    ints sums[ROWS][2];
    for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = (ints){};
    const ints *w = (const ints *)p->w + (int64_t)panel * p->k / 2;
    for (int32_t k = 0; k < p->k; k += 4 * DEPTH, w += 2 * DEPTH)
        for (int r = 0; r < rows; r++) NAME(dot)(sums[r], x + (int64_t)r * p->k + k, w);
    for (int half = 0; half < 2; half++) {
        int32_t column = panel * PANEL + half * VECTOR;
        floats factor = READ(floats, p->scale + column) * scale;
        floats bias = READ(floats, p->bias + column);
        ints shift = READ(ints, p->sums + column) * zero;
        for (int r = 0; r < rows; r++) {
            floats value = __builtin_convertvector(sums[r][half] - shift, floats) * factor;
            AT(floats, out + (int64_t)r * p->n + column) = value * size[r] + bias;
        }
    }
}

/* One panel of a product. */
static void NAME(panel)(const Stage *s, int32_t panel, float *out, float *unused) {
    (void)unused;
    /* Blocks of nearly equal height: a last block of one row would cost half as much as a whole one. */
    int32_t blocks = (s->rows + ROWS - 1) / ROWS;
    for (int32_t b = 0; b < blocks; b++) {
        int32_t first = b * s->rows / blocks, rows = (b + 1) * s->rows / blocks - first;
        const uint8_t *a = s->quantised + (int64_t)first * s->product->k;
        float *to = out + (int64_t)first * s->width;
#define CASE(R) \
    case R: \
        NAME(tile)(R, a, s->product, panel, s->scale, s->zero, s->size + first, to); \
        break;
        switch (rows) { TILES(CASE) }
#undef CASE
    }
    if (!s->gelu) return;
    out += panel * PANEL;
    for (int32_t t = 0; t < s->rows; t++, out += s->width)
        for (int32_t i = 0; i < PANEL; i += VECTOR) AT(floats, out + i) = NAME(gelu)(READ(floats, out + i));
}

/* out (tokens, n) = x (tokens, k) w + b in int8, or GELU of that; `quantised` and `size` are scratch. */
static void NAME(product)(Team *team, const Product *p, const float *x, int32_t tokens, int gelu, uint8_t *quantised,
                          float *size, float *out) {
    Stage stage = {.item = NAME(panel), .n_items = p->n / PANEL, .columns = PANEL, .rows = tokens, .width = p->n};
    stage.product = p;
    stage.scale = NAME(quantise)(x, tokens, p->k, size, quantised, &stage.zero);
    stage.quantised = quantised;
    stage.size = size;
    stage.gelu = gelu;
    share(team, &stage, out, NULL);
}

/* out (rows, PANEL) = a (rows, k) b (k, PANEL), rows at most 4, leading dimensions as given. */
INLINE void NAME(block)(const int rows, const float *a, int32_t lda, const float *b, int32_t ldb, int32_t k, float *out,
                        int32_t ldo) {
    floats sums[4][2];
    for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = (floats){};
    for (int32_t i = 0; i < k; i++) {
        floats left = READ(floats, b + (int64_t)i * ldb), right = READ(floats, b + (int64_t)i * ldb + VECTOR);
        for (int r = 0; r < rows; r++) {
            floats factor = SAME(a[(int64_t)r * lda + i]);
            sums[r][0] = NAME(fused)(factor, left, sums[r][0]);
            sums[r][1] = NAME(fused)(factor, right, sums[r][1]);
        }
    }
    for (int r = 0; r < rows; r++) {
        AT(floats, out + (int64_t)r * ldo) = sums[r][0];
        AT(floats, out + (int64_t)r * ldo + VECTOR) = sums[r][1];
    }
}

INLINE void NAME(small_product)(int rows, const float *a, int32_t lda, const float *b, int32_t ldb, int32_t k,
                                int32_t n, float *out, int32_t ldo) {
    for (int32_t j = 0; j < n; j += PANEL) switch (rows) {
            case 4: NAME(block)(4, a, lda, b + j, ldb, k, out + j, ldo); break;
            case 3: NAME(block)(3, a, lda, b + j, ldb, k, out + j, ldo); break;
            case 2: NAME(block)(2, a, lda, b + j, ldb, k, out + j, ldo); break;
            default: NAME(block)(1, a, lda, b + j, ldb, k, out + j, ldo);
        }
}

/* In place: a row of scores -> exp(scale (score - largest)); gives 1 / sum. Beyond `tokens`, up to `padded`, stands
 * exp(-87), which no sum notices and nothing reads. */
INLINE float NAME(softmax)(float *row, int32_t tokens, int32_t padded, float scale) {
    for (int32_t j = tokens; j < padded; j++) row[j] = -INFINITY;
    floats most = SAME(-INFINITY);
    for (int32_t j = 0; j < padded; j += VECTOR) most = NAME(larger)(READ(floats, row + j), most);
    float largest = most[0];
    for (int i = 1; i < VECTOR; i++) largest = most[i] > largest ? most[i] : largest;
    floats total[16 / VECTOR] = {};
    for (int32_t first = 0; first < padded; first += 16) EACH_OF_16 {
            float *at = row + first + j * VECTOR;
            floats e = NAME(exponential)((READ(floats, at) - largest) * scale);
            AT(floats, at) = e;
            total[j] += e;
        }
    return 1.0f / NAME(sum)(total);
}

/* Attention of one head over merged (tokens, 3 hidden), queries, keys and values side by side; `scratch` is for keys
 * (hidden / heads, padded) and scores (4, padded). */
static void NAME(head)(const Stage *s, int32_t head, float *out, float *scratch) {
    int32_t tokens = s->rows, h = s->width, d = s->columns, padded = (tokens + PANEL - 1) / PANEL * PANEL;
    float scale = 1.0f / __builtin_sqrtf((float)d), *keys = scratch, *scores = keys + d * padded;
    const float *q = s->merged + head * d, *k = q + h, *v = k + h;
    /* Keys are transposed, so that a product reads whole registers of tokens. Places beyond the prompt are set, because
     * nothing may be read that was never written; the softmax overwrites their scores. */
    for (int32_t i = 0; i < d; i++) {
        for (int32_t t = 0; t < tokens; t++) keys[i * padded + t] = k[(int64_t)t * 3 * h + i];
        for (int32_t t = tokens; t < padded; t++) keys[i * padded + t] = 0;
    }
    for (int32_t t = 0; t < tokens; t += 4) {
        int rows = tokens - t < 4 ? tokens - t : 4;
        NAME(small_product)(rows, q + (int64_t)t * 3 * h, 3 * h, keys, padded, d, padded, scores, padded);
        float shares[4];
        for (int r = 0; r < rows; r++) shares[r] = NAME(softmax)(scores + r * padded, tokens, padded, scale);
        float *to = out + (int64_t)t * h + head * d;
        NAME(small_product)(rows, scores, padded, v, 3 * h, tokens, d, to, h);
        for (int r = 0; r < rows; r++)
            for (int32_t i = 0; i < d; i += VECTOR) AT(floats, to + r * h + i) *= shares[r];
    }
}

/* out (tokens, hidden): attention of every head; arguments as `head`. */
static void NAME(attend)(Team *team, const Model *m, const float *merged, int32_t tokens, float *scratch, float *out) {
    Stage stage = {.item = NAME(head), .n_items = m->heads, .columns = m->hidden / m->heads};
    stage.rows = tokens;
    stage.width = m->hidden;
    stage.merged = merged;
    share(team, &stage, out, scratch);
}

/* out = normalised (x + added), row by row; `out` may be either. */
static void NAME(normalise)(const Model *m, const Norm *norm, const float *x, const float *added, int32_t tokens,
                            float *out) {
    int32_t h = m->hidden;
    for (int32_t t = 0; t < tokens; t++, x += h, added += h, out += h) {
        floats sum[16 / VECTOR] = {}, squares[16 / VECTOR] = {};
        for (int32_t first = 0; first < h; first += 16) EACH_OF_16 {
                int32_t i = first + j * VECTOR;
                floats v = READ(floats, x + i) + READ(floats, added + i);
                AT(floats, out + i) = v;
                sum[j] += v;
            }
        /* The mean is taken off before squaring: a difference of two large sums would lose the small variance. */
        float mean = NAME(sum)(sum) / h;
        for (int32_t first = 0; first < h; first += 16) EACH_OF_16 {
                floats v = READ(floats, out + first + j * VECTOR) - mean;
                squares[j] += v * v;
            }
        float factor = 1.0f / __builtin_sqrtf(NAME(sum)(squares) / h + m->epsilon);
        for (int32_t i = 0; i < h; i += VECTOR)
            AT(floats, out + i) =
                (READ(floats, out + i) - mean) * factor * READ(floats, norm->gamma + i) + READ(floats, norm->beta + i);
    }
}

static void NAME(embed)(const Model *m, const int32_t *ids, int32_t tokens, float *state) {
    int32_t h = m->hidden;
    for (int32_t t = 0; t < tokens; t++)
        for (int32_t i = 0; i < h; i += 8)
            _mm256_storeu_ps(state + (int64_t)t * h + i,
                             _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(m->words + (int64_t)ids[t] * h + i))));
    NAME(normalise)(m, &m->embedded, state, m->positions, tokens, state);
}

static void NAME(pool)(int32_t kind, const float *state, int32_t tokens, int32_t h, float *out) {
    for (int32_t i = 0; i < h; i += VECTOR) {
        floats value = READ(floats, state + i);
        if (kind != 2)
            for (int32_t t = 1; t < tokens; t++) {
                floats v = READ(floats, state + (int64_t)t * h + i);
                if (kind == 0) value += v;
                else value = NAME(larger)(value, v);
            }
        if (kind == 0) value /= (float)tokens;
        AT(floats, out + i) = value;
    }
}

/* Features (parts, hidden) of the ids of a call; `scratch` holds `elle_scratch_bytes`, aligned to 64. `team`, of
 * `elle_team_new` or NULL, may help. Gives 0; 1 where a length or an id is not one the model has, before reading it. */
int NAME(elle_encode)(const Model *m, Team *team, const Call *call, void *scratch, float *features) {
    if (!call_fits(m, call)) return 1;
    const int32_t *ids = call->ids, tokens = call->tokens, n_parts = call->n_parts;
    const Part *parts = call->parts;
    if (team && !team_call(team, &scratch)) team = NULL;
    int32_t h = m->hidden, padded = (tokens + PANEL - 1) / PANEL * PANEL;
    float *state = scratch, *middle = state + tokens * h, *merged = middle + tokens * h;
    float *wide = merged + tokens * 3 * h, *of_head = wide + tokens * m->inner;
    float *size = of_head + padded * (h / m->heads + 4);
    uint8_t *quantised = (uint8_t *)(size + padded);
    NAME(embed)(m, ids, tokens, state);
    for (int32_t half = 0;; half++) {
        const float *now = half % 2 ? middle : state;
        for (int32_t i = 0; i < n_parts; i++)
            if (parts[i].halves == half) NAME(pool)(parts[i].kind, now, tokens, h, features + i * h);
        if (half == m->halves) break;
        const Layer *layer = m->layer + half / 2;
        if (half % 2 == 0) {
            NAME(product)(team, &layer->query_key_value, state, tokens, 0, quantised, size, merged);
            NAME(attend)(team, m, merged, tokens, of_head, middle);
            NAME(product)(team, &layer->mixed, middle, tokens, 0, quantised, size, merged);
            NAME(normalise)(m, &layer->middle, merged, state, tokens, middle);
        } else {
            NAME(product)(team, &layer->wide, middle, tokens, 1, quantised, size, wide);
            NAME(product)(team, &layer->narrow, wide, tokens, 0, quantised, size, merged);
            NAME(normalise)(m, &layer->out, merged, middle, tokens, state);
        }
    }
    if (team) team_dismiss(team);
    return 0;
}

#undef floats
#undef ints
#undef AT
#undef READ
#undef PICK
#undef SAME
#undef PANEL
#undef EACH_OF_16
