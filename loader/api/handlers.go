package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/valyala/fasthttp"
)

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

func (h *handler) datasets(ctx *fasthttp.RequestCtx, _ string) error {
	list := datasetList{Datasets: h.node.Datasets()}
	if list.Datasets == nil {
		list.Datasets = []Dataset{}
	}
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
	list := sessionList{Sessions: h.node.Sessions()}
	if list.Sessions == nil {
		list.Sessions = []Session{}
	}
	return answer(ctx, list)
}

func (h *handler) session(ctx *fasthttp.RequestCtx, id string) error {
	for _, candidate := range h.node.Sessions() {
		if candidate.ID == id {
			return answer(ctx, candidate)
		}
	}
	problem := newProblem(CodeNotFound, "no such session is open", id, "see /v1/sessions for those that are")
	return &problem
}
