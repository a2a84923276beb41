# The biases' part of the prediction, for the kernels that train and the one that predicts.


cdef inline vec biases_alone(real mean, real bias, vec other_bias) noexcept nogil:
    """Return the prediction without p . q, for one row and the rows in the lanes of `other_bias`.

    The two biases are added first: exchanging users and items then changes no bit.
    """
    return mean + (bias + other_bias)
