#!/usr/bin/env bash
# Build and install this package as a ROS workspace would, against a virtual environment with the wheels of ROS 2,
# then try what was installed.
#
#   tools/colcon_build.sh <virtual environment> <output folder>
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)

export PATH="${venv}/bin:${PATH}" AMENT_PREFIX_PATH="${venv}" CMAKE_PREFIX_PATH="${venv}" COLCON_LOG_LEVEL=error
unset PYTHONPATH
# colcon's own default adds a load limit, which on a busy machine means one job at a time.
export MAKEFLAGS="-j$(nproc)"
if ! "${venv}/bin/python" -m colcon --log-base "${out}/log" build --base-paths . \
  --build-base "${out}/build" --install-base "${out}/install" --event-handlers console_direct- \
  --cmake-args -DBUILD_TESTING=OFF -DPython3_EXECUTABLE="${venv}/bin/python" -DPython3_FIND_VIRTUALENV=ONLY; then
  tail -n 60 "${out}"/log/latest_build/bridgevla/*.log
  exit 1
fi

set +u
# shellcheck disable=SC1091
source "${out}/install/setup.bash"
set -u
installed=${out}/install/bridgevla
# Away from this tree, so that nothing of it is imported by accident; the messages and the code must be the installed
# ones, and every program that setup.cfg names must be where `ros2 run` looks.
cd "${out}"
python - "${installed}" <<'PYTHON'
import sys
from pathlib import Path

installed = Path(sys.argv[1])
import bridgevla.msg
import bridgevla_ros.bringup

for module in (bridgevla.msg, bridgevla_ros.bringup):
    assert installed in Path(module.__file__).parents, f"{module.__file__} is not in {installed}"
for name in ("msg/WaypointPlan.msg", "srv/Instruct.srv", "action/ExecuteInstruction.action", "package.xml"):
    assert (installed / "share/bridgevla" / name).is_file(), f"{name} is not installed"
for name in ("launch/bringup.launch.py", "config/fastdds.xml", "config/bringup.yaml"):
    assert (installed / "share/bridgevla" / name).is_file(), f"{name} is not installed"
graph = bridgevla_ros.bringup.build({})
for node in graph.nodes:
    assert (installed / "lib/bridgevla" / node.executable).is_file(), f"{node.executable} is not installed"
    assert all(installed in file.parents for file in node.parameter_files), node.parameter_files
print(f"installed: {len(graph.nodes)} nodes, {len(list((installed / 'lib/bridgevla').iterdir()))} programs")
PYTHON
"${installed}/lib/bridgevla/bridgevla" --version
"${installed}/lib/bridgevla/up" --show-args >/dev/null
