"""Drift fields of drifting models (one-step generative models): libcudrift for NumPy, PyTorch and JAX.

`cudrift.drift` takes NumPy's arrays, `cudrift.torch.drift_loss` PyTorch's, `cudrift.jax.drift_loss` JAX's, and
`cudrift.cuda.Plan` whatever lies in a device's memory. `python -m cudrift.doctor` says what this machine has.
"""

from ._abi import DeviceError, Error, InvalidError, NoDeviceError, TooLargeError, lib as _lib
from ._numpy import Drift, drift
from ._spec import Spec

__version__ = _lib.cudrift_version().decode()
__all__ = ["DeviceError", "Drift", "Error", "InvalidError", "NoDeviceError", "Spec", "TooLargeError", "drift", "forget"]


def forget() -> None:
    """Frees the workspaces that calls on the CPU keep for the next."""
    _lib.cudrift_forget()
