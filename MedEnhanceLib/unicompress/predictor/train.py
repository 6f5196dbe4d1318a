"""Trains the networks that ship, with torch."""
from __future__ import annotations
import sys,time,copy
import numpy as np, torch
from MedEnhanceLib.unicompress.predictor import samples as S, network as N
from MedEnhanceLib.unicompress.predictor.features import COUNT
from MedEnhanceLib.unicompress.predictor.tables import WIDER

def make(h):
    k=COUNT-1; L=[]
    for i in h: L+=[torch.nn.Linear(k,i)]; k=i
    L+=[torch.nn.Linear(k,3)]
    with torch.no_grad():
        L[-1].weight*=.1; L[-1].bias.copy_(torch.tensor([0.,-1.4,2.]))
    return torch.nn.ModuleList(L)
def forward(net,x):
    for l in net[:-1]:
        x=torch.clamp(l(x),0,255/32)
    return net[-1](x)
def bits(o,linear,scale,v):
    mu=linear+scale*o[:,0].clamp(-8,8)
    s=(scale*torch.exp2(o[:,1])).clamp(1/16,1e5)
    q=torch.sigmoid(-4+.75*o[:,2].clamp(-.5,7.5))
    def mass(s):
        hi=(v+.5-mu)/s; lo=(v-.5-mu)/s
        lo=torch.where(v<=0,torch.full_like(lo,-1e4),lo)
        flip=(hi+lo)>0
        return (torch.sigmoid(torch.where(flip,-lo,hi))-torch.sigmoid(torch.where(flip,-hi,lo)))
    p=(1-q)*mass(s)+q*mass(s*WIDER)
    return -torch.log2(p.clamp(min=0)*0.998+2e-6)
def to_network(net):
    return N.quantise([l.weight.detach().numpy() for l in net],[l.bias.detach().numpy() for l in net])
