"""Exercises of lesson 16. Check your work: `minillm lessons check 16`, with `--hints` for help.

Devices are simulated: what each of them has is one row of a NumPy array, so no mesh is needed.
"""


def batch_mean(sums, weights):
    """The mean loss of a batch whose rows lie on several devices. (10 minutes, easy)

    A device knows only the sum of its own token losses, and how many tokens that sum has. Some devices may hold padding only.

        batch_mean([6.0, 1.0], [3.0, 1.0]) == 1.75        batch_mean([6.0, 0.0], [3.0, 0.0]) == 2.0

    Args:
        sums: [devices] floats, each device's sum of losses; 0 where its weight is 0.
        weights: [devices] floats, each device's number of tokens, at least 0.

    Returns: the mean loss per token of the whole batch; 0.0 where the batch has no token at all.
    """
    raise NotImplementedError("exercise 16.1: which two numbers would an all-reduce give to every device?")


def piece_shape(shape, axes, rules, mesh):
    """The shape of the piece of a parameter that lies on one device. (20 minutes, medium)

    Each axis of a parameter has a logical name, or None. A rule says along which axis of the mesh a name is cut. Go through the axes
    from first to last and cut each where its rule says, unless the parameter is cut along that axis of the mesh already, or the
    axis of the mesh does not divide the size: then it stays whole.

        rules, mesh = {"hidden": "model", "width": "data"}, {"data": 4, "model": 2}
        piece_shape((32, 128), ("width", "hidden"), rules, mesh) == (8, 64)
        piece_shape((30, 128), ("width", "hidden"), rules, mesh) == (30, 64)        # 30 / 4 is no integer

    Args:
        shape: tuple of integers.
        axes: tuple of names or None, as long as `shape`; None is never cut, nor is a name without a rule.
        rules: dict, logical name -> axis of the mesh.
        mesh: dict, axis of the mesh -> number of devices along it.

    Returns: tuple of integers, as long as `shape`.
    """
    raise NotImplementedError("exercise 16.2: remember which axes of the mesh are taken already")


def summands(x, up, down, bias, devices):
    """What each device puts into the all-reduce of a feed-forward layer. (30 minutes, harder)

    The layer is y = relu(x up) down + bias. `up` is cut by columns and `down` by rows, in equal parts, in order: device 0 has
    the first hidden / devices hidden units. The sum over the devices must be y.

        summands([[1.0]], [[1.0, -1.0]], [[2.0], [3.0]], [0.5], 2) sums to [[2.5]]: relu gives device 1 nothing but its bias, if any

    Args:
        x: [rows, width] floats.
        up: [width, hidden] floats; `devices` divides hidden.
        down: [hidden, width] floats.
        bias: [width] floats.
        devices: at least 1.

    Returns: [devices, rows, width] floats. Only device 0 adds the bias.
    """
    raise NotImplementedError("exercise 16.3: np.split cuts an array in equal parts along an axis")
