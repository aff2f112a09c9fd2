"""Who stops the command in its first second, while it is imported, gets no traceback of the imports."""

import signal
import sys

_called = sys.argv[0] if sys.argv else ""
_is_command = _called.endswith("/jaxscape") or (_called == "-m" and "jaxscape" in sys.orig_argv)
if _is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
