# Sourced by the other scripts: creates a virtual environment, once, and installs a requirements file into it.
#   PYTHON      Python for the environment (default python3, 3.10 or newer)
#   PCM3_VENV   its folder (default .venv in the repository); an environment of your own keeps the versions that it has, as
#               far as the requirements allow
#   PCM3_CONSTRAINTS  versions for a new environment (default constraints.txt, those of the reported results); empty for the
#               newest

make_environment() {
    local requirements=$1 venv=${PCM3_VENV:-.venv} python=${PYTHON:-python3} constraints=${PCM3_CONSTRAINTS-constraints.txt}
    local stamp versions=()
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        echo "error: $python is $("$python" -V 2>&1), Python 3.10 or newer is needed; name one with PYTHON=..." >&2
        exit 2
    fi
    if [ ! -x "$venv/bin/python" ]; then
        if ! "$python" -m venv "$venv"; then
            echo "error: cannot make the environment $venv; name another place with PCM3_VENV=FOLDER" >&2
            exit 2
        fi
        touch "$venv/.made-by-pcm3"
    fi
    if [ -e "$venv/.made-by-pcm3" ] && [ -n "$constraints" ]; then
        versions=(-c "$constraints")
    fi
    source "$venv/bin/activate"
    # the stamp depends on the content of the requirements files: nothing is installed twice
    stamp="$venv/.installed-$(cat requirements.txt "$requirements" ${versions[1]:+"${versions[1]}"} | cksum | cut -d' ' -f1)"
    if [ ! -e "$stamp" ]; then
        echo "installing $requirements into $venv (once)"
        if ! python -m pip install --quiet --disable-pip-version-check -r "$requirements" ${versions[@]+"${versions[@]}"}; then
            echo "error: pip could not install $requirements; see its messages above" >&2
            exit 2
        fi
        touch "$stamp"
    fi
}
