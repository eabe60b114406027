#!/bin/sh
# Take out of a virtual environment what nothing imports; the Dockerfile calls it: docker/slim.sh VENV
set -eu
python=$1/bin/python
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# Headers for compiling against torch (there is no compiler), and the libraries' own tests.
rm -rf "$packages/torch/include" "$packages/torch/share"
for library in pandas scipy sklearn statsmodels sympy pyarrow networkx; do
    [ ! -d "$packages/$library" ] || find "$packages/$library" -type d -name tests -prune -exec rm -rf {} +
done
"$python" -c 'import networkx, pandas, scipy.stats, sklearn.linear_model, statsmodels.api, sympy, torch'
