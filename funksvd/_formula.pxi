# The prediction without the product of the factors, for the kernels that train and the one that predicts.


cdef inline vec biases_alone(real mean, real bias, vec other_bias) noexcept nogil:
    """The prediction without p . q. The biases are added first, so that users and items can be swapped without changing a
    bit."""
    return mean + (bias + other_bias)
