# The front door: each line calls a script, cmake or ctest. `make` alone builds.
.PHONY: build setup run test unit lint docs bench fuzz soak asan tsan gpu-check clean
build:   ; deploy/build.sh
setup:   ; deploy/setup.sh --tests
run:     ; deploy/run.sh
test:    ; tests/run.sh
unit:    ; deploy/build.sh && ctest --test-dir build -LE slow --output-on-failure
lint:    ; deploy/build.sh && ctest --test-dir build -L style --output-on-failure
docs:    ; deploy/build.sh && cmake --build build --target docs
bench:   ; deploy/build.sh && cmake --build build --target bench_programs && ls build/bench
fuzz:    ; tests/fuzz/run.sh
soak:    ; deploy/setup.sh --tests && deploy/build.sh && .venv/bin/python tests/soak/soak.py --page deploy/docs/soak.md
asan:    ; deploy/build.sh build-asan -DSANITIZE=address,undefined && ctest --test-dir build-asan -LE "slow|style|model"
tsan:    ; deploy/build.sh build-tsan -DSANITIZE=thread && TSAN_OPTIONS=suppressions=$(CURDIR)/tests/tsan.supp ctest --test-dir build-tsan -LE "slow|style|model"
gpu-check: ; tests/gpu/check.sh
clean:   ; rm -rf build build-asan build-tsan build-fuzz
