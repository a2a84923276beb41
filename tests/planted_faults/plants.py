"""The faults: where each is planted, the test that must catch it, and the text before and after."""

from __future__ import annotations

from typing import NamedTuple

from .mutants import Change, Check, Kernel


class Plant(NamedTuple):
    """A fault of one kernel."""

    kernel: Kernel  # what is compiled
    check: Check  # the test that must fail
    fault: str  # the fault in words
    change: Change


SGD = Kernel("engines._sgd", "float32")
SGD_64 = Kernel("engines._sgd", "float64")
MINIBATCH = Kernel("engines._minibatch", "float32")
FEATUREWISE = Kernel("engines._featurewise", "")
GIBBS = Kernel("engines._gibbs", "float32")
MOODS = Kernel("engines._moods", "float32")
LOW_RANK = Kernel("engines._low_rank", "float32")
EXPOSURE = Kernel("engines._exposure", "float32")
PREDICT = Kernel("_predict", "float64")
TOP = Kernel("serving._top", "float32")
RIDGE = Kernel("training._ridge", "float32")
GRID = Kernel("ratings._grid", "")
KEYS = Kernel("ratings._keys", "")
TEXTS = Kernel("ratings._texts", "")

PLAIN_SGD = Check("engines/test_sgd.py::test_kernel_equals_naive", "float32 and (8 or 20)")
WEIGHTED_SGD = Check("engines/test_sgd.py::test_weighted_kernel_equals_naive", "float32")
SOLVERS = "engines/test_sgd.py::test_every_solver_equals_naive"
MOMENTUM = Check(SOLVERS, "float32 and sgd")
ADAGRAD_ROW = Check(SOLVERS, "float32 and adagrad_row")
ADAGRAD = Check(SOLVERS, "float32 and adagrad and not adagrad_row")
ADAM = Check(SOLVERS, "float32 and adam and not adamax")
ADAMAX = Check(SOLVERS, "float32 and adamax")
PENALTIES = Check("engines/test_sgd.py::test_every_penalty_equals_naive", "sgd")
BATCHES = Check("engines/test_minibatch.py::test_kernel_equals_naive", "float32 and adam")
BATCH_LENGTHS = Check("engines/test_minibatch.py::test_any_row_length_and_build", "float32")
FEATURES = Check("engines/test_featurewise.py::test_a_pass_is_that_of_the_twin")
SWEEP = Check("engines/test_gibbs.py::test_sweep_equals_naive")
MOOD_DRAW = Check("engines/test_moods.py::test_a_draw_is_that_of_the_naive_twin")
MOOD_BOOKS = Check("engines/test_moods.py::test_the_chain_keeps_its_books")
GENERATORS = Check("engines/test_gibbs.py::test_generators")
EXPOSURE_SWEEP = Check("engines/test_exposure.py::test_a_sweep_equals_the_twin", "32")
CUT = Check("engines/test_low_rank.py::test_cut_keeps_the_largest_singular_values")
FORMULA = Check("serving/test_dense.py::test_predictions_for_all_items_are_the_formula")
BEST = Check("serving/test_top.py::test_top_equals_sorting_all_predictions", "float32")
TIES = Check("serving/test_top.py::test_top_of_any_shape_and_with_ties")
SLACK = Check("serving/test_top.py::test_slack_covers_rounding_in_another_order")
FOLD_IN = Check("training/test_fold_in.py::test_a_folded_row_is_the_ridge_solution", "float32")
ANY_GRID = Check("engines/test_sgd.py::test_any_shape_equals_naive")
BANDS = Check("ratings/test_grid.py::test_bands_are_those_of_longest_processing_time")
ANY_ORDER = Check("ratings/test_grid.py::test_weights_travel_with_their_ratings")
STABLE = Check("ratings/test_sorting.py::test_sorting_by_user_is_stable_for_any_threads")
SPLITS = Check(
    "ratings/test_splits.py::test_splits_of_neighbouring_seeds_differ_and_ignore_row_order"
)
UNKNOWN = Check("engines/test_sgd_fit.py::test_unknown_ids_fall_back_and_are_counted")
DEALT = Check("ratings/test_keys.py::test_every_deal_is_equally_likely")
TEXT_CODES = Check("ratings/test_text_codes.py::test_text_codes_equal_a_dict")

PLANTS = [
    # ---------------------------------------------------------------- SGD, one micro-batch a step
    Plant(
        SGD,
        PLAIN_SGD,
        "the run's row adds up rows that have taken their step",
        Change(
            "engines/_micro_batch.pxi",
            """        push0 += error[j] * x
        q[0] = q_step(j, work, x, q_push[j] * old0, q_state, n, hq)
""",
            """        q[0] = q_step(j, work, x, q_push[j] * old0, q_state, n, hq)
        push0 += error[j] * q[0]
""",
        ),
    ),
    Plant(
        SGD,
        PLAIN_SGD,
        "the last vectors of a row take no step",
        Change("engines/_micro_batch.pxi", "    while f < n:", "    while f + 1 < n:"),
    ),
    Plant(
        SGD,
        PLAIN_SGD,
        "the last run of a block is skipped",
        Change(
            "engines/_walk.pxi", "for r in range(block.count):", "for r in range(block.count - 1):"
        ),
    ),
    Plant(
        SGD,
        PLAIN_SGD,
        "a bias of the other side is left out of the error",
        Change("_formula.pxi", "mean + (bias + other_bias)", "mean + (bias + 0 * other_bias)"),
    ),
    Plant(
        SGD,
        PLAIN_SGD,
        "the dot product leaves its second vector out",
        Change("engines/_micro_batch.pxi", "for f in range(1, n):", "for f in range(2, n):"),
    ),
    Plant(
        SGD,
        WEIGHTED_SGD,
        "a rating's weight counts in the loss alone",
        Change("engines/_micro_batch.pxi", "lanes.error[i] = weighted", "lanes.error[i] = error"),
    ),
    Plant(
        SGD,
        WEIGHTED_SGD,
        "the spare row takes a step for ratings that are not there",
        Change(
            "engines/_micro_batch.pxi",
            "if batch.count < size or size % LANES:",
            "if batch.count < 0 or size % LANES:",
        ),
    ),
    Plant(
        SGD,
        MOMENTUM,
        "a bias' state is left behind",
        Change(
            "engines/_micro_batch.pxi",
            "batch.p_own.bias_state[0] = vec_first(p_state[0])",
            "pass",
        ),
    ),
    Plant(
        SGD,
        ADAGRAD_ROW,
        "the bias has no share in a row's accumulator",
        Change(
            "engines/_micro_batch.pxi",
            "work.error * work.error * (hp.h.bias_rate != 0)",
            "work.error * 0",
        ),
    ),
    # ---------------------------------------------------------------- the table of solvers
    Plant(
        SGD,
        PLAIN_SGD,
        "the penalty's sign",
        Change(
            "engines/_solvers.pxi", "1 - m * rule.rate * rule.l2", "1 + m * rule.rate * rule.l2"
        ),
    ),
    Plant(
        SGD,
        ADAMAX,
        "the penalty of a run counts once",
        Change(
            "engines/_solvers.pxi",
            "h.shrink[m] = m * rule.l2",
            "h.shrink[m] = rule.l2",
        ),
    ),
    Plant(
        SGD,
        MOMENTUM,
        "the momentum is forgotten",
        Change(
            "engines/_solvers.pxi",
            "v = s.h.momentum * state[0] - rate * g",
            "v = 0 * state[0] - rate * g",
        ),
    ),
    Plant(
        SGD,
        ADAGRAD,
        "the accumulator grows after its use",
        Change(
            "engines/_solvers.pxi",
            "return x - rate * g / vec_sqrt(v + vec_splat(s.h.epsilon))",
            "return x - rate * g / vec_sqrt(v - g * g + vec_splat(s.h.epsilon))",
        ),
    ),
    Plant(
        SGD,
        ADAM,
        "a clock stands still",
        Change("engines/_solvers.pxi", "second_clock[0] * s.h.beta_2", "second_clock[0]"),
    ),
    Plant(
        SGD,
        ADAMAX,
        "the largest gradient does not decay",
        Change("engines/_solvers.pxi", "vec_max(s.h.beta_2 * state[n],", "vec_max(state[n],"),
    ),
    Plant(
        SGD_64,
        PENALTIES,
        "the soft threshold takes no heed of the sign",
        Change(
            "engines/_solvers.pxi", "vec_min(x + threshold, zero)", "vec_min(x - threshold, zero)"
        ),
    ),
    Plant(
        SGD_64,
        PENALTIES,
        "factors may fall below their bound",
        Change("engines/_solvers.pxi", "vec_max(soft, vec_splat(low))", "soft"),
    ),
    # ---------------------------------------------------------------- mini-batches
    Plant(
        MINIBATCH,
        BATCHES,
        "every row bears the whole penalty",
        Change("engines/_row_steps.pxi", "rows.share * m if rows.share > 0 else 1", "1"),
    ),
    Plant(
        MINIBATCH,
        BATCHES,
        "L1 pushes away from zero",
        Change(
            "engines/_row_steps.pxi", "push -= penalty * rows.l1[f]", "push += penalty * rows.l1[f]"
        ),
    ),
    Plant(
        MINIBATCH,
        BATCHES,
        "the column of ones is learned",
        Change("engines/_row_steps.pxi", "new[f] * rows.learned[f]", "new[f]"),
    ),
    Plant(
        MINIBATCH,
        BATCHES,
        "a rating's weight counts in the loss alone",
        Change("engines/_minibatch.pyx", "push[0] *= at.weight[t]", "pass"),
    ),
    Plant(
        MINIBATCH,
        BATCHES,
        "entries of the next row count, too",
        Change(
            "engines/_minibatch.pyx",
            "entries[t + j].push if j < size else 0",
            "entries[t + j].push",
        ),
    ),
    Plant(
        MINIBATCH,
        BATCH_LENGTHS,
        "the dot product misses the row's tail",
        Change(
            "engines/_minibatch.pyx",
            "    for f in range(1, n):",
            "    for f in range(1, n - 1):",
        ),
    ),
    # ---------------------------------------------------------------- one feature after the other
    Plant(
        FEATUREWISE,
        FEATURES,
        "a run starts each micro-batch from its stale value",
        Change(
            "engines/_featurewise.pyx",
            "x = x * <real>(1 - m",
            "x = p[block.run_row[run]] * <real>(1 - m",
        ),
    ),
    Plant(
        FEATUREWISE,
        FEATURES,
        "the penalty of a run counts once",
        Change(
            "engines/_featurewise.pyx",
            "1 - m * rule.rate * rule.run.l2",
            "1 - rule.rate * rule.run.l2",
        ),
    ),
    Plant(
        FEATUREWISE,
        FEATURES,
        "the soft threshold takes no heed of the sign",
        Change(
            "engines/_featurewise.pyx",
            "x + threshold if x < -threshold",
            "x - threshold if x < -threshold",
        ),
    ),
    Plant(
        FEATUREWISE,
        FEATURES,
        "the last rating of a run keeps its old cache",
        Change("engines/_featurewise.pyx", "range(t, run_end[r])", "range(t, run_end[r] - 1)"),
    ),
    # ---------------------------------------------------------------- the sampler
    Plant(
        GIBBS,
        GENERATORS,
        "the shape of a gamma draw is off by a third",
        Change("engines/_random.pxi", "d = shape - 1.0 / 3", "d = shape"),
    ),
    Plant(
        GIBBS,
        GENERATORS,
        "both normals of a pair are the same",
        Change(
            "engines/_random.pxi",
            "other = main if for_angle[j] & 0x40000000 else s",
            "other = main",
        ),
    ),
    Plant(
        GIBBS,
        SWEEP,
        "the sign in the Cholesky factor of a row with few ratings",
        Change(
            "engines/_gibbs.pyx",
            "d -= few.S[j][t] * few.S[i][t]",
            "d += few.S[j][t] * few.S[i][t]",
        ),
    ),
    Plant(
        MOODS,
        MOOD_DRAW,
        "a mood takes no part of the mood after it",
        Change("engines/_moods.pyx", "x = mean + gain *", "x = mean - gain *"),
    ),
    Plant(
        MOODS,
        MOOD_DRAW,
        "the filter forgets the variance that comes between two ratings",
        Change(
            "engines/_moods.pyx",
            "variance = r * r * v[j] + s * ((one - r) * (one + r))",
            "variance = v[j] + s * ((one - r) * (one + r))",
        ),
    ),
    Plant(
        MOODS,
        MOOD_DRAW,
        "the process itself is left out of its residual",
        Change(
            "engines/_moods.pyx",
            "+ (<const loose_vec*>mood)[at] - predicted",
            "- predicted",
        ),
    ),
    Plant(
        MOODS,
        MOOD_BOOKS,
        "the items' ratings keep their moods",
        Change(
            "engines/_moods.pyx",
            "item_value[item_place[slot]] = value[slot]",
            "item_value[item_place[slot]] = rating[slot]",
        ),
    ),
    Plant(
        MOODS,
        MOOD_BOOKS,
        "a stretched process leaves the residuals as they were",
        Change(
            "engines/_moods.pyx",
            "block.rest[slot] += x[slot] - factor * x[slot]",
            "block.rest[slot] += 0",
        ),
    ),
    Plant(
        GIBBS,
        SWEEP,
        "the sign in the Cholesky factor of a row with many ratings",
        Change("engines/_linear.pxi", "target[f] - factor * row[f]", "target[f] + factor * row[f]"),
    ),
    Plant(
        GIBBS,
        SWEEP,
        "the prior's mean is left out",
        Change("engines/_gibbs.pyx", "precision * c[f] + lam[f] * w.prior[f]", "precision * c[f]"),
    ),
    Plant(
        GIBBS,
        SWEEP,
        "a row's prior mean does not know its set",
        Change("engines/_gibbs.pyx", "w.prior[f] += own.offsets[row, f]", "pass"),
    ),
    Plant(
        GIBBS,
        SWEEP,
        "the prior mean of a bias does not know its set",
        Change("engines/_gibbs.pyx", "w.prior_bias += own.bias_offsets[row]", "pass"),
    ),
    Plant(
        GIBBS,
        SWEEP,
        "a feature's own share of the residuals is left out",
        Change("engines/_features.pxi", "lam * (total + q * old) / t + (", "lam * total / t + ("),
    ),
    Plant(
        GIBBS,
        SWEEP,
        "the residuals of factors do not follow a feature",
        Change("engines/_features.pxi", "row[i] = row[i] - v * step[i]", "pass"),
    ),
    Plant(
        GIBBS,
        SWEEP,
        "the residuals of biases do not follow a feature",
        Change(
            "engines/_features.pxi",
            "chunk.bias_residuals[index[t]] -= v * bias_step",
            "chunk.bias_residuals[index[t]] -= 0",
        ),
    ),
    Plant(
        GIBBS,
        SWEEP,
        "the last row of an odd number is not in a feature",
        Change("engines/_features.pxi", "if half < n:", "if half < n - 1:"),
    ),
    Plant(
        GIBBS,
        SWEEP,
        "values are summed instead of their squares",
        Change("engines/_features.pxi", "total += v * v", "total += v"),
    ),
    Plant(
        GIBBS,
        SWEEP,
        "two features share their normals",
        Change(
            "engines/_features.pxi",
            "z + j % FEATURES_OF_A_BLOCK * SLICE",
            "z",
        ),
    ),
    Plant(
        GIBBS,
        SWEEP,
        "the shift does not know the sets",
        Change("engines/_whole_side.pxi", "b -= side.bias_offsets[j]", "b -= 0"),
    ),
    Plant(
        GIBBS,
        SWEEP,
        "the precision of rows is that of rows without sets",
        Change("engines/_whole_side.pxi", "d -= side.offsets[row, f]", "d -= 0"),
    ),
    Plant(
        GIBBS,
        SWEEP,
        "overrelaxed draws are too wide",
        Change("engines/_gibbs.pyx", "sqrtf(1 - relax * relax)", "sqrtf(1 + relax * relax)"),
    ),
    Plant(
        GIBBS,
        SWEEP,
        "the noise weight of a row does not know how many ratings there are",
        Change("engines/_gibbs.pyx", "(sweep.nu + n) / 2", "sweep.nu / 2"),
    ),
    Plant(
        GIBBS,
        SWEEP,
        "sample weights are ignored",
        Change("engines/_gibbs.pyx", "scale *= given.root_weight[j]", "pass"),
    ),
    Plant(
        GIBBS,
        SWEEP,
        "a row of the Gram matrix is made from its neighbour",
        Change("engines/_linear.pxi", "s7 += left[7] * v", "s7 += left[6] * v"),
    ),
    Plant(
        LOW_RANK,
        CUT,
        "a rotation turns one row the wrong way",
        Change("engines/_low_rank.pyx", "s * old + c * q[t]", "c * q[t] - s * old"),
    ),
    Plant(
        LOW_RANK,
        CUT,
        "rows with many ratings count no more than others",
        Change("engines/_low_rank.pyx", "= scale * means[row, f]", "= means[row, f]"),
    ),
    Plant(
        LOW_RANK,
        CUT,
        "the last row of four is not transformed",
        Change(
            "engines/_low_rank.pyx",
            "min(last - row, <Py_ssize_t>4)",
            "min(last - row, <Py_ssize_t>3)",
        ),
    ),
    Plant(
        EXPOSURE,
        EXPOSURE_SWEEP,
        "a pair's weight counts in the right side alone",
        Change("engines/_exposure.pyx", "= root * q[f]", "= q[f]"),
    ),
    Plant(
        EXPOSURE,
        EXPOSURE_SWEEP,
        "pairs after the first batch of a long row are left out",
        Change("engines/_exposure.pyx", "        first += m", "        first = pairs.n"),
    ),
    Plant(
        EXPOSURE,
        EXPOSURE_SWEEP,
        "the last pairs of a row are left out of the right side",
        Change("engines/_exposure.pyx", "(m + 3) / 4 * 4, w.g, w.root", "m / 4 * 4, w.g, w.root"),
    ),
    Plant(
        EXPOSURE,
        EXPOSURE_SWEEP,
        "the penalty is left out",
        Change("engines/_exposure.pyx", "f * width + f] += penalty", "f * width + f] += 0"),
    ),
    Plant(
        EXPOSURE,
        EXPOSURE_SWEEP,
        "the penalty counts in the loss",
        Change(
            "engines/_exposure.pyx",
            "- <double>penalty * dot(width, w.x, w.x)",
            "+ 0 * <double>penalty",
        ),
    ),
    # ---------------------------------------------------------------- answers
    Plant(
        PREDICT,
        FORMULA,
        "an unknown user has the bias of the last one",
        Change(
            "_predict.pyx",
            "user_biases[u] if u >= 0 else 0",
            "user_biases[u if u >= 0 else user_biases.shape[0] - 1]",
        ),
    ),
    Plant(
        PREDICT,
        FORMULA,
        "the tail of a row is left out",
        Change("_predict.pyx", "for f in range(whole, k):", "for f in range(whole, k - 1):"),
    ),
    Plant(
        TOP,
        BEST,
        "items that a user has seen are recommended",
        Change(
            "serving/_top.pyx", "seen.codes[seen.next[t]] == code", "seen.codes[seen.next[t]] == -9"
        ),
    ),
    Plant(
        TOP,
        SLACK,
        "the slack for rounding is left out",
        Change("serving/_top.pyx", "- lists.slack[t]", ""),
    ),
    Plant(
        TOP,
        BEST,
        "the limit is the best score, not the n-th best",
        Change("serving/_top.pyx", "    return scores[n - 1]", "    return scores[0]"),
    ),
    Plant(
        TOP,
        TIES,
        "of equal scores the larger code comes first",
        Change(
            "serving/_top.pyx",
            "(x.code > y.code) - (x.code < y.code)",
            "(x.code < y.code) - (x.code > y.code)",
        ),
    ),
    Plant(
        RIDGE,
        FOLD_IN,
        "the penalty of the factors is left out",
        Change("training/_ridge.pyx", "a[i * n + i] += factor_penalty", "pass"),
    ),
    Plant(
        RIDGE,
        FOLD_IN,
        "the sign in the Cholesky factor",
        Change(
            "training/_ridge.pyx",
            "s -= a[i * n + f] * a[j * n + f]",
            "s += a[i * n + f] * a[j * n + f]",
        ),
    ),
    Plant(
        RIDGE,
        FOLD_IN,
        "sample weights are ignored",
        Change("training/_ridge.pyx", "weighted = weight * z[i]", "weighted = z[i]"),
    ),
    # ---------------------------------------------------------------- ratings
    Plant(
        GRID,
        ANY_GRID,
        "repeated pairs are not moved apart",
        Change("ratings/_grid.pyx", "if repeats > 1:", "if repeats > 1 << 30:"),
    ),
    Plant(
        GRID,
        ANY_ORDER,
        "a run may hold an item twice",
        Change("ratings/_grid.pyx", "index[t] <= index[t - 1]", "index[t] < index[t - 1]"),
    ),
    Plant(
        GRID,
        BANDS,
        "a band takes one row more than fits",
        Change("ratings/_grid.pyx", "if size[b] == most:", "if size[b] == most + 1:"),
    ),
    Plant(
        GRID,
        ANY_ORDER,
        "equal pairs stay in the order they came in",
        Change(
            "ratings/_sort_row.pxi",
            "a.rating > b.rating or (a.rating == b.rating and a.weight > b.weight)",
            "False",
        ),
    ),
    Plant(
        KEYS,
        STABLE,
        "a sort is not stable",
        Change(
            "ratings/_keys.pyx",
            "for t in range(keys.shape[0]):\n            at = cursor",
            "for t in range(keys.shape[0] - 1, -1, -1):\n            at = cursor",
        ),
    ),
    Plant(
        KEYS,
        SPLITS,
        "the hash of a rating forgets the seed",
        Change("ratings/_keys.pyx", "seed = mix(seed + 1)", "seed = mix(1)"),
    ),
    Plant(
        KEYS,
        UNKNOWN,
        "an unknown id is read as the last one",
        Change(
            "ratings/_keys.pyx",
            "out[t] = -1",
            "out[t] = table[span - 1]",
        ),
    ),
    Plant(
        KEYS,
        DEALT,
        "a shuffle never leaves a rating where it is",
        Change("ratings/_keys.pyx", "* <uint64_t>(t + 1)) >> 32)", "* <uint64_t>t) >> 32)"),
    ),
    Plant(
        TEXTS,
        TEXT_CODES,
        "texts are lost as the table grows",
        Change(
            "ratings/_texts.pyx", "self.slots[t].hash & mask", "self.slots[t].hash & (mask >> 1)"
        ),
    ),
]
