# Sourced by the commands in tests/, at the root of the repository. Makes the
# virtual environment in target/venv, again whenever its requirements change, and
# leaves the interpreter's path in $python.

python=$PWD/target/venv/bin/python

make_venv() {
    local base wanted
    for base in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.10; do
        if [ -n "$base" ] && "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            break
        fi
        base=
    done
    if [ -z "$base" ]; then
        echo "Python 3.10 or newer is needed: install it, or name it as PYTHON=/path/to/python3." >&2
        return 1
    fi

    wanted="$("$base" -V) $(cksum <tests/requirements.txt)"
    if [ "$(cat target/venv/made-for 2>/dev/null)" = "$wanted" ] && "$python" -c '' 2>/dev/null; then
        return
    fi

    echo "==> making the Python environment in target/venv"
    rm -rf target/venv
    mkdir -p target
    # Debian's python3 has neither venv nor pip until python3-venv is installed.
    if ! "$base" -m venv target/venv; then
        echo "Python cannot make a virtual environment: install python3-venv (apt-get install python3-venv)." >&2
        return 1
    fi
    "$python" -m pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt
    echo "$wanted" >target/venv/made-for
}

make_venv
export PYTHONPATH=$PWD/tests PYTHONUNBUFFERED=1
