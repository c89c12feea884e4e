package api

import (
	"context"
	_ "embed" // for openapi.json
	"errors"
	"net/http"
	"slices"

	"github.com/valyala/fasthttp"
)

// openAPI describes the API to people and programs; tests hold the handlers to it.
//
//go:embed openapi.json
var openAPI []byte

// status is the answer of /healthz and /readyz.
type status struct {
	Status string `json:"status"`
}

// datasetList and sessionList leave room for fields beside the list.
type datasetList struct {
	Datasets []Dataset `json:"datasets"`
}

type sessionList struct {
	Sessions []Session `json:"sessions"`
}

type stallList struct {
	Sessions []SessionStalls `json:"sessions"`
	Jobs     []JobForesight  `json:"jobs"`
}

// health answers as long as the process can.
func (h *handler) health(ctx *fasthttp.RequestCtx, _ string) error {
	return answer(ctx, status{"ok"})
}

func (h *handler) ready(ctx *fasthttp.RequestCtx, _ string) error {
	err := h.node.Ready()
	if err == nil {
		return answer(ctx, status{"ready"})
	}
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	problem := newProblem(CodeUnavailable, err.Error(), "", "wait, or see the daemon's log")
	problem.Err = err
	return &problem
}

func (h *handler) metrics(ctx *fasthttp.RequestCtx, _ string) error {
	h.scrape(ctx)
	return nil
}

func (h *handler) version(ctx *fasthttp.RequestCtx, _ string) error {
	return answer(ctx, h.node.Version())
}

func (h *handler) description(ctx *fasthttp.RequestCtx, _ string) error {
	ctx.Response.Header.SetContentType("application/json")
	ctx.Response.SetBodyRaw(openAPI)
	return nil
}

func (h *handler) datasets(ctx *fasthttp.RequestCtx, _ string) error {
	list := datasetList{Datasets: h.node.Datasets()}
	fillIn(&list.Datasets)
	return answer(ctx, list)
}

func (h *handler) dataset(ctx *fasthttp.RequestCtx, name string) error {
	found, err := h.node.Dataset(name)
	if err != nil {
		return err
	}
	return answer(ctx, found)
}

func (h *handler) removeDataset(ctx *fasthttp.RequestCtx, name string) error {
	bounded, cancel := context.WithTimeout(h.ctx, requestTimeout)
	defer cancel()
	if err := h.node.RemoveDataset(bounded, name); err != nil {
		return err
	}
	ctx.SetStatusCode(http.StatusNoContent)
	return nil
}

func (h *handler) sessions(ctx *fasthttp.RequestCtx, _ string) error {
	list := sessionList{Sessions: slices.Clone(h.node.Sessions())} // changed below
	fillIn(&list.Sessions)
	for i := range list.Sessions {
		fillIn(&list.Sessions[i].Columns)
	}
	return answer(ctx, list)
}

func (h *handler) session(ctx *fasthttp.RequestCtx, id string) error {
	found, err := h.node.Session(id)
	if err != nil {
		return err
	}
	fillIn(&found.Columns)
	return answer(ctx, found)
}

func (h *handler) stalls(ctx *fasthttp.RequestCtx, _ string) error {
	list := stallList{Sessions: slices.Clone(h.node.Stalls())} // changed below
	fillIn(&list.Sessions)
	list.Jobs = JobsOf(list.Sessions)
	fillIn(&list.Jobs)
	for i := range list.Sessions {
		worst := slices.Clone(list.Sessions[i].Worst)
		fillIn(&worst)
		for j := range worst {
			fillIn(&worst[j].Files)
		}
		list.Sessions[i].Worst = worst
	}
	return answer(ctx, list)
}

// fillIn makes an absent list an empty one: a list of the API is never null.
func fillIn[T any](list *[]T) {
	if *list == nil {
		*list = []T{}
	}
}
