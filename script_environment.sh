# Sourced by the other scripts: makes a virtual environment and installs what a requirements file names, once.
#   PYTHON      which Python makes it (default python3, 3.10 or newer)
#   PCM3_VENV   where it is (default .venv in the repository); an environment of your own is used as it is

make_environment() {
    local requirements=$1 venv=${PCM3_VENV:-.venv} python=${PYTHON:-python3} stamp
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        echo "error: $python is $("$python" -V 2>&1), Python 3.10 or newer is needed; name one with PYTHON=..." >&2
        exit 2
    fi
    if [ ! -x "$venv/bin/python" ] && ! "$python" -m venv "$venv"; then
        echo "error: cannot make the environment $venv; name another place with PCM3_VENV=FOLDER" >&2
        exit 2
    fi
    source "$venv/bin/activate"
    # what is installed is remembered by the content of the requirements files: a second run installs nothing
    stamp="$venv/.installed-$(cat requirements.txt "$requirements" | cksum | cut -d' ' -f1)"
    if [ ! -e "$stamp" ]; then
        echo "installing $requirements into $venv (once)"
        if ! python -m pip install --quiet --disable-pip-version-check -r "$requirements"; then
            echo "error: pip could not install $requirements; what it said is above" >&2
            exit 2
        fi
        touch "$stamp"
    fi
}
