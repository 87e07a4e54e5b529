package dispatch

import (
	"testing"

	"go.uber.org/goleak"

	"postman/internal/pgcluster/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Shared(m)) }
