"""For pip; ament_cmake_python makes its own and reads setup.cfg. The version is that of package.xml."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import find_packages, setup

manifest = ElementTree.parse(Path(__file__).parent / "package.xml").getroot()

setup(
    # Not `bridgevla`: that is the name of the Python package with the generated messages.
    name="bridgevla_ros",
    version=manifest.findtext("version"),
    description=" ".join((manifest.findtext("description") or "").split()),
    license=manifest.findtext("license"),
    python_requires=">=3.11",
    packages=find_packages(include=["bridgevla_ros", "bridgevla_ros.*"]),
    include_package_data=True,
    package_data={"bridgevla_ros": ["weights/**/*", "**/*.txt", "**/*.json", "**/*.yaml"]},
    # In a virtual environment one program is enough; the nodes run as `python -m bridgevla_ros.nodes.<name>`.
    entry_points={"console_scripts": ["bridgevla = bridgevla_ros.cli:main"]},
    zip_safe=False,
)
