"""Exercises of lesson 15. Check your work: `minillm lessons check 15`, with `--hints` for help."""


def best_split(compute, tokens_per_parameter):
    """How large a model, and how much text, for a given compute? (10 minutes, easy)

    Training costs C = 6 N D FLOPs. If the best D is a fixed number of tokens for every parameter, then C decides both.

        best_split(6e9, 10.0) == (10_000.0, 100_000.0)        6 * 10^4 * 10^5 = 6 * 10^9

    Args:
        compute: C, above 0.
        tokens_per_parameter: D / N, above 0.

    Returns: (N, D); no rounding.
    """
    raise NotImplementedError("exercise 15.1: put D = tokens_per_parameter * N into C = 6 N D, solve for N")


def fit_power_law(x, y):
    """The power law y = a x^b that is nearest to the points on paper with two logarithmic axes. (20 minutes, medium)

    There a power law is a straight line, log y = log a + b log x. Take the line with the smallest sum of squared errors of
    log y, by its formula or with a function of NumPy.

        fit_power_law([1.0, 10.0, 100.0], [8.0, 4.0, 2.0]) == (8.0, -0.30103)        ten times x, half of y

    Args:
        x: [points] numbers above 0, not all equal, in any order.
        y: [points] numbers above 0.

    Returns: (a, b), two floats.
    """
    raise NotImplementedError("exercise 15.2: logarithms of both, slope = covariance / variance, then the height")


def training_cost(flops, devices, peak, utilisation, price, watts):
    """What a training run costs, every assumption an argument. (15 minutes, medium)

    A device can do `peak` FLOP/s and does `utilisation` of that. All work side by side; each is rented, and draws its watts,
    for as long as the run takes, whether it computes or waits.

        training_cost(3.6e18, 10, 1e13, 0.5, 2.0, 500.0) == (20.0, 400.0, 100.0)

    Args:
        flops: of the whole run.
        devices: how many.
        peak: FLOP/s of one device.
        utilisation: 0 to 1.
        price: of one device for one hour.
        watts: of one device.

    Returns: (hours that the run takes, money, kilowatt hours).
    """
    raise NotImplementedError("exercise 15.3: seconds first; what is paid for is hours times devices")
