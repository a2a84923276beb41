"""Pictures of a training run. matplotlib is imported inside the functions, and no window or display is needed."""


def learning_curve(history, path, floor=None):
    """Draw the RMSE of each epoch into an image file.

    Parameters
    ----------
    history : dict of lists
        ``FunkSVD.history_``; ``val_rmse`` is drawn where there is one.
    path : str or PathLike
        File to write; its suffix says which format (``.png``, ``.svg``, ``.pdf``).
    floor : float, optional
        RMSE that no model can beat, drawn as a dashed line.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "funksvd[plots]"') from error

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)  # without pyplot: no global state, no choice of a backend
    axes = figure.add_subplot()
    epochs = range(1, len(history["rmse"]) + 1)
    axes.plot(epochs, history["rmse"], marker="o", markersize=3, label="training (during the epoch)")
    if history.get("val_rmse"):
        axes.plot(epochs, history["val_rmse"], marker="o", markersize=3, label="validation")
    if floor is not None:
        axes.axhline(floor, color="0.3", linestyle="--", linewidth=1, label="noise floor")
    axes.set_xlabel("epoch")
    axes.set_ylabel("RMSE")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
