"""The convolution layer of series."""

from __future__ import annotations

from typing import Any

from fastconv.keras.layers.conv import Conv2D
from fastconv.keras.layers.images import SeriesLayer


class Conv1D(SeriesLayer, Conv2D):
    """Convolution of series (N, W, C) with learned filters: `Conv2D` on images of height 1.

    Series (N, IW, IC) become (N, OW, filters), OW as in `Conv2D`.

    Parameters
    ----------
    filters : int
        Number of output channels.
    kernel_size, strides, dilation_rate : int
        Width of the window, its step, and the distance between its taps.
    padding : {"valid", "same", "causal"}
        ``"causal"`` pads the beginning only, so that no output sees what comes after it.
    data_format, groups, activation, use_bias, **kwargs
        As in `Conv2D`, as are the initializers and regularizers.

    Raises
    ------
    ValueError
        As in `Conv2D`.

    Examples
    --------
    >>> Conv1D(8, 3, padding="causal").compute_output_shape((None, 100, 2))
    (None, 100, 8)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        causal = str(padding).lower() == "causal"
        super().__init__(
            filters,
            kernel_size,
            strides,
            "valid" if causal else padding,
            data_format,
            dilation_rate,
            groups,
            activation,
            use_bias,
            kernel_initializer,
            bias_initializer,
            kernel_regularizer,
            bias_regularizer,
            **kwargs,
        )
        if causal:
            self.padding = "causal"

    def _options(self, channels: int) -> dict[str, Any]:
        options = super()._options(channels)
        if self.padding == "causal":
            options["padding"] = ((0, 0), ((self.kernel_size[0] - 1) * self.dilation_rate[0], 0))
        return options
