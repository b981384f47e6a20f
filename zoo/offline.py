"""Has other packages send no word from this machine; imported before they are.

OpenVINO's converter and NNCF tell Google Analytics of each use, from a fork of this process, and
where there is no network hold its end up for ten seconds. Without the module that sends, they do
neither.
"""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if not installed
